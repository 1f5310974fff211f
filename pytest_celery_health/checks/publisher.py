"""Whether who publishes gets an end, and its messages arrive, whatever the broker does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import is_name, more_than, plural, short_name
from pytest_celery_health.durations import Duration, seconds, spell
from pytest_celery_health.facts import Ask, AskPublishers, Published, Publishing, Snapshot, Unseen
from pytest_celery_health.spelling import meant
from pytest_celery_health.verdict import Finding

#: What can be wrong with the broker while somebody publishes, and what it does then.
WORLDS = {
    "broker_refuses": "refuses",
    "broker_hangs": "hangs",
    "broker_slow": "is slow",
    "broker_blocks": "blocks",
    "broker_resets": "resets connections",
    "broker_closes": "closes connections",
    "broker_cuts": "is cut off in mid-reply",
    "broker_hangs_after": "hangs in mid-reply",
    "broker_wrong_password": "refuses the password",
    "broker_restarts_empty": "has restarted",
}
#: What is tried unless a row says otherwise.
USUAL = ("broker_refuses", "broker_hangs", "broker_slow", "broker_blocks", "broker_cuts")
_WELL = "the broker is well"
_AGAIN = "the broker is well again"


@dataclass(frozen=True)
class PublisherEnds(Check):
    """Who publishes gets an end in time, and its messages arrive once, whatever the broker does meanwhile.

    call: the function of the project that publishes, "package.module:function". It is called without
        arguments, in processes of its own: in a new one, and in one that has published before.
    then: a function that publishes what the call has only put aside, as an outbox does; it is called when the
        broker is well.
    answers_within: what a call may take. It may raise, or return False or an HTTP error.
    when: what is wrong with the broker meanwhile: names of faults.
    idempotent: the tasks may run twice, so that a message which arrives though its call raised does no harm,
        nor does a second one.

    Source: the messages that the sandbox's broker holds when the fault is over.
    """

    needs_sandbox: ClassVar[bool] = True

    call: str
    _: KW_ONLY
    then: str = ""
    answers_within: Duration = 3.0
    when: tuple[str, ...] = USUAL
    idempotent: bool = False

    def __post_init__(self) -> None:
        self._in_seconds("answers_within")
        if not self.answers_within:
            raise ValueError("answers_within is 0, which no call can meet")
        for field in ("call", "then"):
            name = getattr(self, field)
            if not is_name(name) and (name or field == "call"):
                raise ValueError(f'{field} is "{name}"; write "package.module:function"')
        if not self.when:
            raise ValueError(f'when is empty; write ["{USUAL[0]}", "{USUAL[1]}"], say')
        for world in self.when:
            if world not in WORLDS:
                hint = meant(world, WORLDS)
                raise ValueError(f'when has "{world}", which is no fault of a broker; {hint}')

    def asks(self) -> Iterable[Ask]:
        yield AskPublishers(self.call, self.then, self.when, seconds(self.answers_within))

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        published = seen.fact(Published, call=self.call, then=self.then)
        if isinstance(published, Unseen):
            yield Finding.unseen(self._name, published)
            return
        well = [*self._of_well(published.healthy)]
        yield from well
        if any(not finding.warning for finding in well):
            return
        shown = self._shown(published)
        bad = False
        for found in self._found(published, shown):
            bad |= found.ok is False and not found.warning
            yield found
        calls = [each for each in shown if not (each.unseen or each.impossible)]
        longest = max((each.took for each in calls), default=published.healthy.took)
        did = f"ended within {spell(round(longest, 1))}" if not bad else "was called"
        figures = {f"{each.world}.{each.process}.took": round(each.took, 3) for each in calls}
        yield Finding(True, self._name, f"{did} whatever the broker did", figures=figures)

    @property
    def _name(self) -> str:
        return short_name(self.call)

    def _shown(self, published: Published) -> list[Publishing]:
        return [each for each in published.seen if each.world in self.when]

    def _of_well(self, healthy: Publishing) -> Iterator[Finding]:
        late = self._late(healthy, _WELL, "")
        if late is not None:
            yield late
        elif healthy.ended in ("raised", "refused"):
            how = _said(healthy)
            yield Finding(False, self._name, f"{how} while {_WELL}{_at(healthy)}", "an end without error")
        elif not healthy.arrived:
            hint = "" if self.then else 'name what publishes it later: then = "package.module:function"'
            yield Finding(False, self._name, f"publishes nothing while {_WELL}", "a message", hint)

    def _found(self, published: Published, shown: Sequence[Publishing]) -> Iterator[Finding]:
        """The mistakes, each world's once, and what could not be seen."""
        for world in dict.fromkeys(each.world for each in shown):
            calls = [each for each in shown if each.world == world]
            told: dict[str, list[tuple[Publishing, Finding]]] = {}
            for each in calls:
                if each.unseen or (each.impossible and self.when != USUAL):
                    yield Finding(None, self._name, each.unseen or each.impossible)
                for kind, finding in self._mistakes(each, published):
                    told.setdefault(kind, []).append((each, finding))
            for findings in told.values():
                each, finding = findings[0]
                if len(findings) == 1 and len(calls) > 1:
                    where = "a new process" if each.process == "new" else "one that has published before"
                    hint = "; ".join(filter(None, [f"in {where}", finding.hint]))
                    finding = replace(finding, hint=hint)
                yield finding

    def _mistakes(self, each: Publishing, published: Published) -> Iterator[tuple[str, Finding]]:
        if each.unseen or each.impossible:
            return
        meanwhile = f"the broker {WORLDS[each.world]}"
        late = self._late(each, meanwhile, _remedy(each.world, published.broker))
        if late is not None:
            yield "late", late
        yield from self._counted(each, published, f"while {meanwhile}")
        if each.again is not None:
            yield from self._of_again(each.again, published)

    def _late(self, each: Publishing, meanwhile: str, remedy: str) -> Finding | None:
        within = seconds(self.answers_within)
        wanted = f"an end within {spell(within)}"
        if each.backend:
            remedy = "it waits for the result backend: ignore_result=True, where nobody reads the result"
        if each.ended == "died":
            return Finding(False, self._name, f"ended its process while {meanwhile}: {each.error}", wanted)
        if each.ended == "hung":
            hung = "left a thread that hung" if each.thread else "hung"
            seen = f"{hung} for {spell(each.took)} while {meanwhile}{_at(each)}"
            return Finding(False, self._name, seen, wanted, remedy)
        if each.took <= within:
            return None
        seen = f"took {more_than(within, each.took)} while {meanwhile}{_at(each)}"
        return Finding(False, self._name, seen, wanted, remedy, {"took": each.took})

    def _counted(self, each: Publishing, published: Published, when: str) -> Iterator[tuple[str, Finding]]:
        for task, usual in published.healthy.arrived.items():
            came = each.arrived.get(task, 0)
            name = task or "a message"
            if came > usual:
                seen = f"published {plural(came, 'message')}{f' of {task}' if task else ''} {when}"
                hint = self._sent_again(task, came - usual, each.resent.get(task, 0))
                wanted = plural(usual, "message")
                yield "twice", Finding(False, self._name, seen, wanted, hint, warning=self.idempotent)
            elif each.ended == "returned" and came < usual:
                arrive = f"{came} of {usual} messages arrive" if usual > 1 else "no message arrives"
                seen = f"loses {name}: it returned {when}, and {arrive}"
                yield "lost", Finding(False, self._name, seen, "its message, or an error")
            elif each.ended in ("raised", "refused") and came and not self.idempotent:
                seen = f"sends {name}, though it {_said(each)} {when}"
                hint = "who tries again publishes twice: idempotent = true, if the task may run twice"
                yield "unsure", Finding(False, self._name, seen, hint=hint, warning=True)

    def _sent_again(self, task: str, more: int, resent: int) -> str:
        """Who has done so: kombu, if it is the same message, else who called it."""
        if not task:
            return "resent by kombu (retry=False), or published again by a retry of its own"
        hints = []
        if resent:
            hints.append("the same message arrived again: kombu resent it; retry=False")
        if more > resent:
            hints.append("it was published again, as messages of their own")
            if not self.idempotent:
                hints[-1] += ": try again only where the task may run twice, with idempotent = true"
        return "; ".join(hints)

    def _of_again(self, again: Publishing, published: Published) -> Iterator[tuple[str, Finding]]:
        when = f"once {_AGAIN} after {again.world}"
        late = self._late(again, f"{_AGAIN} after {again.world}", "")
        if late is not None:
            yield "back", late
        elif again.ended in ("raised", "refused"):
            how = f"raised {again.error}" if again.ended == "raised" else _said(again)
            yield "back", Finding(False, self._name, f"still {how} {when}", "its message")
        else:
            for _, finding in self._counted(again, published, when):
                yield "back", finding

    def table(self, seen: Snapshot) -> Iterable[Sequence[str]]:
        published = seen.fact(Published, call=self.call, then=self.then)
        if isinstance(published, Unseen):
            return
        yield "world", "process", "ended", "took", "messages", "afterwards"
        for each in (published.healthy, *self._shown(published)):
            if each.unseen or each.impossible:
                yield each.world, "", "?" if each.unseen else "n/a", "", "", ""
                continue
            again = "-" if each.again is None else f"{each.again.ended}, {_messages(each.again)}"
            took = spell(round(each.took, 2))
            ended = f"thread {each.ended}" if each.thread else each.ended
            yield each.world, each.process, ended, took, _messages(each), again


def _said(each: Publishing) -> str:
    if each.ended == "refused":
        return f"returned {each.error}"
    error, colon, _ = each.error.partition(": ")
    return f"raised {error}" if colon else f"raised {each.error}"


def _at(each: Publishing) -> str:
    return f", at {each.at.partition(' in ')[0]}" if each.at else ""


def _messages(each: Publishing) -> str:
    return str(sum(each.arrived.values()))


def _remedy(world: str, broker: str) -> str:
    """What bounds a call on this transport."""
    if world == "broker_refuses":
        option = "max_retries"
    elif broker == "redis":
        option = "socket_timeout"
    else:
        option = "connect_timeout, and read_timeout and write_timeout"
    return f"{option} in the transport options of the connection that it publishes on"
