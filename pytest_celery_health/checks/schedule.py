"""Whether what beat sends can run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass

from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import silent
from pytest_celery_health.facts import Ask, AskSchedule, AskWorkers, Snapshot, Unseen, Workers
from pytest_celery_health.verdict import Finding


@dataclass(frozen=True)
class ScheduleRuns(Check):
    """Every entry of the schedule can run: its task exists, its arguments fit, its queue is consumed.

    entries: the entries to look at, all of them unless given.

    Source: the app's configuration, and `active_queues`.
    """

    _: KW_ONLY
    entries: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.entries is not None and not (self.entries and all(name.strip() for name in self.entries)):
            what = "has an empty name" if self.entries else "names no entry, so nothing is judged"
            raise ValueError(f"entries {what}; write those of the schedule, or leave it out for all")

    def asks(self) -> Iterable[Ask]:
        yield AskSchedule()
        yield AskWorkers(frozenset({"active_queues"}))

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        schedule = seen.schedule
        if isinstance(schedule, Unseen):
            yield Finding.unseen("", schedule, hint="schedule")
            return
        names = {entry.name for entry in schedule.entries}
        for name in self.entries or ():
            if name not in names:
                known = ", ".join(sorted(names)[:5]) or "none"
                yield Finding(False, name, "is not in the schedule", "an entry", f"entries: {known}")
        if not names and not self.entries:
            yield Finding(None, "schedule", "the app's schedule is empty")
        for entry in schedule.entries:
            if self.entries and entry.name not in self.entries:
                continue
            subject = f"entry {entry.name}"
            if entry.malformed:
                yield Finding(False, subject, entry.malformed, entry.wanted)
                continue
            if not entry.task:
                yield Finding(False, subject, "names no task", "a task")
                continue
            if not entry.registered:
                sends = f"is no task of the app, and {subject} sends it"
                yield Finding(False, entry.task, sends, "a task that it has")
                continue
            if entry.problem:
                yield Finding(
                    False,
                    subject,
                    f"does not fit {entry.task}: {entry.problem}",
                    "fitting arguments",
                )
                continue
            if entry.exchange and not entry.bound:
                sends = f"has no queue for {entry.routing_key}, and {subject} sends {entry.task} to it"
                yield Finding(False, f"exchange {entry.exchange}", sends, "a queue bound to it")
                continue
            if entry.exchange and isinstance(entry.bound, Unseen):
                sends = f"sends {entry.task} to exchange {entry.exchange} with {entry.routing_key}"
                why = f"to which the app binds no queue: {entry.bound.why}"
                yield Finding(None, subject, f"{sends}, {why}")
                continue
            queues = (entry.queue,) if entry.queue else entry.bound
            if isinstance(queues, Unseen):
                yield Finding(None, subject, f"where {entry.task} is sent is not known without sending it")
                continue
            yield _consumed(seen.workers, subject, entry.task, queues)


def _consumed(workers: Workers | Unseen, subject: str, task: str, queues: tuple[str, ...]) -> Finding:
    """Whether a worker consumes one of `queues`, each of which gets the message."""
    blind: Unseen | None = None
    for queue in queues:
        consumers = workers if isinstance(workers, Unseen) else workers.consuming(queue)
        if isinstance(consumers, Unseen):
            blind = consumers
        elif consumers:
            sends = f"sends {task} to {queue}, consumed by {consumers[0]}"
            return Finding(True, subject, sends, "a consumed queue")
    if blind is not None:
        return Finding.unseen(subject, blind)
    every = ", ".join(queues)
    are, them = ("is", "it") if len(queues) == 1 else ("are", "them")
    if not isinstance(workers, Unseen) and workers.unheard:
        why = f"{every} {are} consumed by no worker that answered, and {silent(workers.unheard)}"
        return Finding(None, subject, why)
    sends = f"{are} consumed by no worker, and {subject} sends {task} to {them}"
    return Finding(False, every, sends, "a consumer")
