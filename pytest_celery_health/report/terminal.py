"""The terminal's section: the fleet in a table, and the run in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_celery_health.checks import BeatFresh, QueueDepth
from pytest_celery_health.checks.words import first_names, plural
from pytest_celery_health.durations import seconds, spell, spell_age
from pytest_celery_health.facts import NOT_ASKED, Beat, Queue, Queues, Snapshot, Unseen, Worker, Workers
from pytest_celery_health.outcome import Outcome
from pytest_celery_health.run import Run
from pytest_celery_health.sandbox.seal import Refusal

_BAR = 20
_SHIPPED = ("looks", "received", "swept", "broker", "refused", "notes", "foreign", "mistakes")


@dataclass
class Tally:
    """What the run came to, gathered from all of its processes."""

    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)
    failed: int = 0
    blind: int = 0
    looks: int = 0
    received: int = 0
    swept: int = 0
    broker: str = ""
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def add(self, nodeid: str, outcomes: Iterable[Outcome]) -> None:
        self.outcomes += [(nodeid, outcome) for outcome in outcomes]

    def shipped(self) -> dict[str, Any]:
        """What a pytest-xdist process tells the one that reports; outcomes travel with their reports."""
        return {name: getattr(self, name) for name in _SHIPPED}

    def join(self, shipped: Mapping[str, Any]) -> None:
        for name, value in shipped.items():
            mine = getattr(self, name)
            if isinstance(mine, list):
                value = [*mine, *(one for one in value if one not in mine)]
            elif isinstance(mine, int):
                value = mine + value
            setattr(self, name, value or mine)

    def line(self, *, named: bool = False) -> str:
        """The whole run in one line; with `named`, also what was bad and failed nothing."""
        count = len(self.outcomes)
        by = {
            status: sum(outcome.status == status for _, outcome in self.outcomes)
            for status in ("healthy", "unhealthy", "unknown")
        }
        parts = [f"{number} {status}" for status, number in by.items() if number] or ["nothing judged"]
        text = f"{plural(count, 'check')}: {', '.join(parts)}"
        for how in ("warned", "silenced") if named else ():
            names = dict.fromkeys(
                outcome.subject for _, outcome in self.outcomes if how in dict(outcome.softened)
            )
            if names:
                text += f" · {len(names)} {how}: {first_names(list(names))}"
        text += f" · {plural(self.looks, 'look')}, {_size(self.received)}"
        return text + (f", {self.swept} leftovers swept" if self.swept else "")


def refused(refusals: Iterable[Refusal]) -> list[str]:
    """A line for each address: who wanted to go there, and from where in the code."""
    roles: dict[str, dict[str, None]] = {}
    places: dict[str, dict[str, None]] = {}
    for refusal in refusals:
        roles.setdefault(refusal.address, {})[refusal.role] = None
        places.setdefault(refusal.address, {})[refusal.where] = None
    lines = []
    for address, by in roles.items():
        first, *more = places[address]
        also = f" and {len(more)} more places" if len(more) > 1 else f" and {more[0]}" if more else ""
        lines.append(f"{address} to {', '.join(by)}, at {first}{also}")
    return lines


def summary(out: pytest.TerminalReporter, run: Run, tally: Tally, *, ended: bool) -> None:
    """Write the section; one line under -q. `ended`: the run came to its end."""
    if out.verbosity < 0:
        if tally.outcomes:
            out.write_line(tally.line(named=True))
        return
    if run.seen is None and not tally.outcomes and not tally.foreign:
        return
    title = run.target_name
    if tally.broker:
        title += f" ({tally.broker})"
    out.write_sep("-", f"celery-health: {title}")
    if run.seen is not None:
        _fleet(out, run, run.seen.snapshot)
    for _, outcome in tally.outcomes:
        if outcome.table and (outcome.status != "healthy" or outcome.warnings or out.verbosity > 0):
            out.write_line(f"{outcome.subject}:")
            _table(out, outcome.table[0], outcome.table[1:])
    for nodeid, outcome in tally.outcomes:
        for how, evidence in outcome.softened:
            out.write_line(f"{how.upper()} {nodeid} - {evidence}", yellow=True)
    for line in tally.refused:
        out.write_line(f"refused: {line}", yellow=True)
    if tally.refused:
        out.write_line("what the sandbox may reach besides its broker: allow in [tool.celery-health.sandbox]")
    for note in tally.notes:
        out.write_line(f"note: {note}", yellow=True)
    if tally.foreign:
        out.write_line(f"not for {run.target_name}: {', '.join(tally.foreign)}")
    bad = any(outcome.fails for _, outcome in tally.outcomes)
    blind = any(outcome.blind for _, outcome in tally.outcomes)
    good = ended and bool(tally.outcomes) and not blind
    out.write_line(tally.line(), red=bad, yellow=not bad and not good, green=not bad and good)


def _fleet(out: pytest.TerminalReporter, run: Run, seen: Snapshot) -> None:
    workers = seen.workers
    blind: dict[str, str] = {}
    if isinstance(workers, Workers):
        _table(out, ("worker", "pool", "up", "queues"), [_worker(worker) for worker in workers.answered])
        for beat in workers.beats:
            out.write_line(f"{beat}  (beat)")
    elif Workers in seen.unseen:
        blind["workers"] = workers.why
    limits = _limits(run)
    queues = [queue for fact in seen.facts if isinstance(fact, Queues) for queue in fact.seen]
    _table(
        out,
        ("queue", "ready", "", "consumers"),
        [_queue(queue, seen, limits.get(queue.name)) for queue in queues],
    )
    if Queues in seen.unseen:
        blind["queues"] = seen.unseen[Queues].why
    within = {check.heartbeat: seconds(check.within) for check in run.checks if isinstance(check, BeatFresh)}
    for fact in seen.facts:
        if isinstance(fact, Beat):
            _beat(out, fact, seen, within.get(fact.source))
    by_reason: dict[str, list[str]] = {}
    for what, why in blind.items():
        by_reason.setdefault(why, []).append(what)
    for why, what_all in by_reason.items():
        out.write_line(f"not seen: {', '.join(what_all)}: {why.splitlines()[0]}", yellow=True)


def _worker(worker: Worker) -> tuple[str, ...]:
    pool = "" if isinstance(worker.pool, Unseen) else worker.pool
    if not isinstance(worker.pool_size, Unseen):
        pool += f" x{worker.pool_size}"
    up = "" if isinstance(worker.uptime, Unseen) else spell(worker.uptime)
    if isinstance(worker.queues, Unseen):
        queues = "" if worker.queues == NOT_ASKED else "not seen"
    else:
        queues = ", ".join(worker.queues) or "none"
    name = worker.name if worker.answers == 1 else f"{worker.name} (x{worker.answers})"
    return name, pool, up, queues


def _queue(queue: Queue, seen: Snapshot, limit: int | None) -> tuple[str, ...]:
    workers = seen.workers
    consumers: int | Unseen = queue.consumers
    if isinstance(consumers, Unseen) and isinstance(workers, Workers):
        names = workers.consuming(queue.name)
        consumers = names if isinstance(names, Unseen) else len(names)
    shown = "?" if isinstance(consumers, Unseen) else str(consumers)
    if queue.exists is False:
        return queue.name, "missing", "", shown
    if isinstance(queue.ready, Unseen):
        return queue.name, "not seen", queue.ready.why, shown
    if limit is None:
        return queue.name, f"{queue.ready:,}", "", shown
    filled = min(_BAR, round(_BAR * queue.ready / limit))
    return queue.name, f"{queue.ready:,} / {limit:,}", "[" + "#" * filled + "." * (_BAR - filled) + "]", shown


def _beat(out: pytest.TerminalReporter, beat: Beat, seen: Snapshot, within: float | None) -> None:
    if isinstance(beat.last_seen, Unseen):
        out.write_line(f"beat  not seen: {beat.last_seen.why}", yellow=True)
        return
    if beat.last_seen.tzinfo is None:
        out.write_line(f"beat  {beat.last_seen.isoformat()}, without a time zone", yellow=True)
        return
    age = beat.age(beat.last_seen, seen.now)
    limit = f", wanted within {spell(within)}" if within else ""
    out.write_line(f"beat  {spell_age(age)} by {beat.source or 'ping'}{limit}")


def _limits(run: Run) -> dict[str, int]:
    limits = {}
    for check in run.checks:
        if isinstance(check, QueueDepth) and check.ready_below is not None and run.seen is not None:
            queues = run.seen.snapshot.queues(check.queues)
            if not isinstance(queues, Unseen):
                limits.update(dict.fromkeys((queue.name for queue in queues), check.ready_below))
    return limits


def _table(out: pytest.TerminalReporter, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    columns = [column for column in range(len(head)) if any(row[column] for row in rows)]
    widths = {column: max(len(row[column]) for row in [head, *rows]) for column in columns}
    for index, row in enumerate([head, *rows]):
        line = "  ".join(row[column].ljust(widths[column]) for column in columns).rstrip()
        out.write_line(line, bold=index == 0)


def _size(number: int) -> str:
    return f"{number:,} B" if number < 1000 else f"{number / 1000:,.0f} kB"
