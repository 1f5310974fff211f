"""Whether what beat sends can run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass

from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import silent
from pytest_celery_health.facts import Ask, AskSchedule, AskWorkers, Snapshot, Unseen
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
            if not entry.queue:
                yield Finding(None, subject, f"where {entry.task} is sent is not known without sending it")
                continue
            workers = seen.workers
            consumers = workers if isinstance(workers, Unseen) else workers.consuming(entry.queue)
            if isinstance(consumers, Unseen):
                yield Finding.unseen(subject, consumers)
            elif consumers:
                sends = f"sends {entry.task} to {entry.queue}, consumed by {consumers[0]}"
                yield Finding(True, subject, sends, "a consumed queue")
            elif not isinstance(workers, Unseen) and isinstance(workers.unheard, int) and workers.unheard:
                blind = f"{entry.queue} is consumed by no worker that answered, and {silent(workers.unheard)}"
                yield Finding(None, subject, blind)
            else:
                sends = f"is consumed by no worker, and {subject} sends {entry.task} to it"
                yield Finding(False, entry.queue, sends, "a consumer")
