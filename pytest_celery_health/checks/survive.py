"""Whether the handlers of signals about tasks do their work when something else goes wrong, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from difflib import get_close_matches
from typing import ClassVar

from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import is_name, listed, plural, short_name
from pytest_celery_health.durations import Duration, seconds, spell
from pytest_celery_health.facts import Ask, AskTrials, Call, Snapshot, Trial, Trials, Unseen
from pytest_celery_health.verdict import Finding

#: Names of arguments whose values are secret, whatever the contract adds.
SECRETS = ("password", "secret", "token")
#: What can be wrong with a handler, as `allow` names it.
KINDS = ("error", "late", "lost", "retries", "secret")


@dataclass(frozen=True)
class HandlersSurvive(Check):
    """Signal handlers do their work with exceptions, arguments and alert servers that are hard on them.

    handlers: the handlers to judge, "package.module:name". Unless given: all of the project's own.
    within: what a call may take, whatever the alert server does.
    allow: handlers whose mistakes are accepted, "package.module:name", or those of one kind,
        "kind:package.module:name"; a kind is error, late, lost, retries or secret.
    secrets: names of task arguments whose values are secret, beside password, secret and token. "exception"
        is the text of exceptions, which otherwise may be sent.

    Handlers are really called, in a sealed process where every HTTP request is answered at once and none
    leaves. Source: what they were seen to do there.
    """

    needs_sandbox: ClassVar[bool] = True

    _: KW_ONLY
    handlers: tuple[str, ...] = ()
    within: Duration = 2.0
    allow: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._in_seconds("within")
        if not self.within:
            raise ValueError("within is 0, which no call can meet")
        for name in self.handlers:
            if not is_name(name):
                raise ValueError(f'handlers has "{name}"; write "package.module:name"')
        for entry in self.allow:
            kind, _, name = entry.partition(":")
            if is_name(entry):
                continue
            if not is_name(name):
                raise ValueError(
                    f'allow has "{entry}"; write "package.module:name" or "lost:package.module:name"'
                )
            if kind not in KINDS:
                raise ValueError(f'allow has "{entry}"; its kind is one of {", ".join(KINDS)}')

    def asks(self) -> Iterable[Ask]:
        yield AskTrials(frozenset(self.handlers), seconds(self.within), frozenset({*SECRETS, *self.secrets}))

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        trials = seen.trials
        if isinstance(trials, Unseen):
            yield Finding.unseen("", trials, hint="handlers")
            return
        names = [trial.name for trial in trials.seen]
        for name in self.handlers:
            if name not in names:
                near = get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]}?" if near else ""
                yield Finding(None, name, "is connected to no signal about a task", hint=hint)
        judged = self._judged(trials)
        for trial in judged:
            yield from self._of(trial, trials.tasks)
        if not judged and not self.handlers:
            yield Finding(None, "handlers", "the app connects none of its own to a signal about a task")
        elif judged:
            calls = sum(len(trial.calls) for trial in judged)
            names = [trial.name for trial in judged]
            took = {f"{trial.name}.{trial.signal}.took": _longest(trial) for trial in judged if trial.calls}
            yield Finding(
                True,
                plural(len(set(names)), "handler"),
                f"survived {plural(calls, 'call')}",
                figures={"calls": calls, **took},
            )

    def table(self, seen: Snapshot) -> Iterable[Sequence[str]]:
        trials = seen.trials
        if isinstance(trials, Unseen) or not trials.seen:
            return
        yield "signal", "handler", "calls", "does", "wrong", "where"
        for trial in sorted(self._judged(trials), key=lambda trial: trial.signal):
            does = dict.fromkeys(what for call in trial.calls for what in call.does)
            wrong = [kind for kind, _ in self._found(trial)]
            if trial.unseen:
                wrong.append("not called to the end")
            if self._is_idle(trial):
                wrong.append("(idle)")
            yield (
                trial.signal,
                trial.name,
                str(len(trial.calls)),
                ", ".join(does) or "nothing seen",
                ", ".join(wrong),
                trial.where,
            )

    def _judged(self, trials: Trials) -> list[Trial]:
        return [t for t in trials.seen if (t.name in self.handlers if self.handlers else t.own)]

    def _of(self, trial: Trial, tasks: int) -> Iterator[Finding]:
        for _, finding in self._found(trial):
            yield finding
        if trial.unseen:
            yield Finding(None, trial.name, trial.unseen)
        for call in _doubtful(trial)[:1]:
            yield Finding(
                None, short_name(trial.name), f"{call.error} {_when(trial, call)}, and {call.doubt}"
            )
        for call in [call for call in trial.calls if call.rare and call.error][:1]:
            yield Finding(
                False, short_name(trial.name), f"{call.error} {_when(trial, call)}", "no error", warning=True
            )
        if self._is_idle(trial):
            hint = f"it would for one named {trial.would}" if trial.would else ""
            whom = f"any of the app's {tasks:,} tasks" if tasks > 1 else "the app's task"
            seen = f"does nothing for {whom}: {trial.skipped} never runs"
            yield Finding(False, short_name(trial.name), seen, "an effect for one", hint, warning=True)

    def _found(self, trial: Trial) -> Iterator[tuple[str, Finding]]:
        """The mistakes of a handler, at most one of each kind."""
        judges: dict[str, Callable[[Trial], Finding | None]] = {
            "error": _error,
            "late": self._late,
            "lost": _lost,
            "retries": _retries,
            "secret": self._secret,
        }
        for kind, judge in judges.items():
            finding = judge(trial)
            if finding is not None and not {trial.name, f"{kind}:{trial.name}"} & {*self.allow}:
                yield kind, finding

    def _late(self, trial: Trial) -> Finding | None:
        within = seconds(self.within)
        wanted = f"an end within {spell(within)}"
        for call in trial.calls:
            if call.unbounded:
                seen = f"posts without a timeout to {call.unbounded[0]} {_when(trial, call)}"
                hint = "a server that hangs keeps it, and what it runs in, for ever"
                return Finding(False, short_name(trial.name), seen, wanted, hint)
        for call in trial.calls:
            if call.stuck:
                seen = f"did not end {_when(trial, call)}; it was at {call.stuck}"
                return Finding(False, short_name(trial.name), seen, wanted)
        longest = max(trial.calls, key=lambda call: call.took, default=None)
        if longest is None or longest.took <= within:
            return None
        seen = f"takes {spell(round(longest.took, 1))} {_when(trial, longest)}"
        return Finding(False, short_name(trial.name), seen, wanted)

    def _secret(self, trial: Trial) -> Finding | None:
        wanted = {*SECRETS, *self.secrets}
        for call in trial.calls:
            leaks = [leak for leak in call.leaks if leak.key in wanted]
            if leaks:
                to = leaks[0].to
                keys = listed(sorted(leak.key for leak in leaks if leak.to == to))
                how = f"sends {keys} in clear to {to}" if to else f"logs {keys} in clear"
                return Finding(False, short_name(trial.name), f"{how} {_when(trial, call)}", "secrets hidden")
        return None

    def _is_idle(self, trial: Trial) -> bool:
        return bool(trial.skipped) and not any(call.does or call.error for call in trial.calls)


def _longest(trial: Trial) -> float:
    """Seconds that the longest of its calls took, to the millisecond."""
    return round(max(call.took for call in trial.calls), 3)


def _error(trial: Trial) -> Finding | None:
    calls = [call for call in trial.calls if call.error and not call.doubt and not call.rare]
    if not calls:
        return None
    first = min(calls, key=lambda call: bool(call.payload))
    hint = "Celery swallows it"
    others = len({call.error for call in calls} - {first.error})
    if others:
        hint += f"; {plural(others, 'other error')} with other payloads"
    return Finding(False, short_name(trial.name), f"{first.error} {_when(trial, first)}", "no error", hint)


def _doubtful(trial: Trial) -> list[Call]:
    return [call for call in trial.calls if call.error and call.doubt and not call.rare]


def _lost(trial: Trial) -> Finding | None:
    usual = {(call.task, call.retries): _asked(call) for call in trial.calls if not call.payload}
    lost = [
        call
        for call in trial.calls
        if call.at_fault in call.failed
        and not (call.error or call.stuck or call.logged or call.unbounded)
        # Another server took it.
        and _asked(call) <= usual.get((call.task, call.retries), set())
    ]
    if not lost:
        return None
    host = lost[0].at_fault
    ways = dict.fromkeys(call.payload.removeprefix(f"{host} ") for call in lost if call.at_fault == host)
    first, sign, others = listed(list(ways), "or").partition("answers ")
    how = f"{host} {first}{sign}{others.replace(sign, '')}" if sign else f"{host} {first}"
    seen = f"loses its alert without a word for {trial.signal} when {how} {_at(trial)}"
    return Finding(False, short_name(trial.name), seen, "a log record of WARNING or above, or another server")


def _asked(call: Call) -> set[str]:
    return {what for what in call.does if " " not in what}


def _retries(trial: Trial) -> Finding | None:
    calls = [call for call in trial.calls if call.retries is not None and not call.payload]
    real = [call for call in calls if _happens(call)]
    known = {what for call in real for what in call.does}
    for call in calls:
        new = [what for what in call.does if what not in known]
        if _happens(call) or not new:
            continue
        seen = f"{_doing(new[0])} for {trial.signal} only from retries {call.retries} on {_at(trial)}"
        most = max(each.most or 0 for each in calls)
        hint = "the first retry is number 0"
        return Finding(
            False, short_name(trial.name), seen, f"at most {max(most - 1, 0)}, as no task gets further", hint
        )
    return None


def _happens(call: Call) -> bool:
    return call.most is None or (call.retries or 0) < call.most


def _doing(what: str) -> str:
    kind, _, name = what.partition(" ")
    return {"log": f"logs {name}", "metric": f"counts {name}", "a": "sends a task"}.get(kind, f"asks {what}")


def _when(trial: Trial, call: Call) -> str:
    word = "when" if call.at_fault else "with"
    what = f" {word} {call.payload}" if call.payload else ""
    return f"for {trial.signal}{what} {_at(trial)}"


def _at(trial: Trial) -> str:
    return f"({trial.where})"
