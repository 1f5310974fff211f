"""Whether somebody hears of it when a task dies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import listed, plural
from pytest_celery_health.facts import Ask, AskDrills, Drilled, Ending, Output, Snapshot, Unseen
from pytest_celery_health.hosts import same_host
from pytest_celery_health.spelling import meant
from pytest_celery_health.verdict import Finding

#: The ends of which somebody should hear: the task failed, was given up, or may be lost.
DEATHS = (
    "raises",
    "retries_exhausted",
    "reject",
    "soft_time_limit",
    "hard_time_limit",
    "worker_lost",
    "sys_exit",
    "memory_error",
    "wrong_arguments",
    "unserialisable_result",
    "unpicklable_exception",
    "unregistered",
    "missing_header",
    "undecodable_body",
    "revoked_before",
    "revoked_running",
    "expired",
    "poison_pill",
    "broker_lost",
    "warm_shutdown",
    "soft_shutdown",
    "cold_shutdown",
    "worker_killed",
)
#: The others, of which nobody has to.
OTHERS = ("success", "retry", "ignore", "worker_starts")
#: The pools that drills know.
POOLS = ("prefork", "solo", "threads")
_LOG, _METRIC = "log", "metric"


@dataclass(frozen=True)
class AlertsReach(Check):
    """Somebody hears of it when a task dies: each end is brought about in a real worker.

    must_reach: by output, the ends that must reach it. An output is the host of an HTTP request or its
        domain, "log" (a log record of WARNING or above, Celery's too), "log:LOGGER" (of that logger or one
        below), "metric" or "metric:NAME". An end is one of the drills', or "package.module:END" of your own.
    ends: further ends that are tried and shown; unless given, every death of a task.
    task: the task that dies, for handlers that act by name; unless given, one of the drills' own.
    pool: "prefork", "solo" or "threads"; unless given, the sandbox's.

    Source: drills; HTTP requests are answered with 200 there and never leave.
    """

    needs_sandbox: ClassVar[bool] = True

    must_reach: Mapping[str, tuple[str, ...]]
    _: KW_ONLY
    ends: tuple[str, ...] = DEATHS
    task: str = ""
    pool: str = ""

    def __post_init__(self) -> None:
        if not self.must_reach:
            raise ValueError('must_reach is empty; write { "hooks.slack.com" = ["raises", "worker_lost"] }')
        for output, ends in self.must_reach.items():
            kind, colon, name = output.partition(":")
            if "/" in output or (colon and (kind not in (_LOG, _METRIC) or not name)):
                raise ValueError(
                    f'must_reach has "{output}"; write a host such as "hooks.slack.com", "log", "log:LOGGER",'
                    ' "metric" or "metric:NAME"'
                )
            if not ends:
                raise ValueError(
                    f'must_reach has no end for "{output}"; write ["raises", "worker_lost"], say'
                )
            for end in ends:
                refuse_unknown_end("must_reach", end)
        for end in self.ends:
            refuse_unknown_end("ends", end)
        refuse_unknown_pool(self.pool)

    def asks(self) -> Iterable[Ask]:
        wanted = [end for ends in self.must_reach.values() for end in ends]
        every = dict.fromkeys([*DEATHS, *OTHERS, *wanted, *self.ends])
        yield AskDrills(tuple(e for e in every if e in wanted or e in self.ends), self.task, self.pool)

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        drilled = seen.fact(Drilled, task=self.task, pool=self.pool)
        if isinstance(drilled, Unseen):
            yield Finding.unseen("", drilled, hint="alerts")
            return
        endings = {ending.end: ending for ending in self._shown(drilled)}
        total = reached = 0
        for output, ends in self.must_reach.items():
            for end in dict.fromkeys(ends):
                ending = endings.get(end) or Ending(end, unseen="it was not drilled")
                total += 1
                if ending.unseen or ending.impossible:
                    yield Finding(None, end, ending.unseen or ending.impossible)
                elif _heard(ending, output):
                    reached += 1
                else:
                    yield _silent(ending, output)
        wanted = {end for ends in self.must_reach.values() for end in ends}
        for ending in endings.values():
            if ending.end not in wanted and not ending.impossible:
                yield from _unasked(ending)
        figures = {f"{end}.reaches": ", ".join(_outputs(ending)) for end, ending in endings.items()}
        yield Finding(True, f"{reached} of {plural(total, 'alert')}", "arrived", figures=figures)

    def table(self, seen: Snapshot) -> Iterable[Sequence[str]]:
        drilled = seen.fact(Drilled, task=self.task, pool=self.pool)
        if isinstance(drilled, Unseen) or not drilled.seen:
            return
        endings = self._shown(drilled)
        hosts = dict.fromkeys(
            output.name for ending in endings for output in ending.outputs if output.kind == "request"
        )
        known = [output for output in self.must_reach if output not in (_LOG, _METRIC)]
        others = [host for host in hosts if not any(same_host(host, output) for output in known)]
        columns = [*known, *sorted(others), _LOG, _METRIC]
        yield "end", *columns, "handlers' errors"
        for ending in endings:
            if ending.impossible:
                cells = ["n/a"] * len(columns)
            elif ending.unseen:
                cells = ["?"] * len(columns)
            else:
                cells = [self._cell(ending, column) for column in columns]
            yield ending.end, *cells, str(len(ending.errors) or "")

    def _cell(self, ending: Ending, column: str) -> str:
        count = sum(output.count for output in ending.outputs if _fits(output, column) and not output.lost)
        if count:
            return str(count)
        return "MISSING" if ending.end in self.must_reach.get(column, ()) else "-"

    def _shown(self, drilled: Drilled) -> list[Ending]:
        wanted = {*self.ends, *(end for ends in self.must_reach.values() for end in ends)}
        return [ending for ending in drilled.seen if ending.end in wanted]


def refuse_unknown_end(field: str, end: str, known: Sequence[str] = (*DEATHS, *OTHERS)) -> None:
    """Raise ValueError for an end that is neither `known` nor somebody's own, "package.module:END"."""
    if end in known or all(end.partition(":")):
        return
    raise ValueError(f'{field} has "{end}", which is no end of a drill; {meant(end, known)}')


def refuse_unknown_pool(pool: str) -> None:
    """Raise ValueError for a pool that drills do not know; "" is the sandbox's."""
    if pool not in ("", *POOLS):
        raise ValueError(f'pool is "{pool}"; drills know {", ".join(POOLS)}')


def _silent(ending: Ending, output: str) -> Finding:
    lost = [each.lost for each in ending.outputs if _fits(each, output) and each.lost]
    reached = _outputs(ending)
    if lost:
        seen = f"never reaches {output}: {lost[0]}"
    else:
        seen = f"never reaches {output}, only {listed(reached)}" if reached else "is heard of by nobody"
    return Finding(False, ending.end, seen, f"an alert to {output}", _errors(ending))


def _errors(ending: Ending) -> str:
    if not ending.errors:
        return ""
    more = len(ending.errors) - 1
    return f"meanwhile {ending.errors[0]}" + (f", and {plural(more, 'other error')}" if more else "")


def _unasked(ending: Ending) -> Iterator[Finding]:
    if ending.unseen:
        yield Finding(False, ending.end, f"was not seen: {ending.unseen}", warning=True)
    elif not _outputs(ending):
        yield Finding(False, ending.end, "is heard of by nobody", hint=_errors(ending), warning=True)


def _outputs(ending: Ending) -> list[str]:
    """Whom it reached: hosts, "log", metrics."""
    heard = [output for output in ending.outputs if not output.lost]
    hosts, metrics = (
        sorted(each.name for each in heard if each.kind == kind) for kind in ("request", "metric")
    )
    return [*hosts, *([_LOG] if any(each.kind == "log" for each in heard) else []), *metrics]


def _heard(ending: Ending, wanted: str) -> bool:
    return any(_fits(output, wanted) and not output.lost for output in ending.outputs)


def _fits(output: Output, wanted: str) -> bool:
    kind, _, name = wanted.partition(":")
    if kind == _LOG:
        return output.kind == "log" and (not name or f"{output.name}.".startswith(f"{name}."))
    if kind == _METRIC:
        return output.kind == "metric" and name in ("", output.name, output.name.removesuffix("_total"))
    return output.kind == "request" and same_host(output.name, wanted)
