"""A beat of the project's app, as a child process: `python -m ...sandbox.children.beat TASK_FILE`.

It keeps its schedule in memory and sends only entries that it was told, each at its start and then on time.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from celery.beat import ScheduleEntry, Scheduler

from pytest_celery_health.project.child.schedule import KEYS, scheduler_of
from pytest_celery_health.sandbox.children.child import ENTRY_HEADER, Task
from pytest_celery_health.spelling import meant

if TYPE_CHECKING:
    from celery import Celery


class OnlyNamed(Scheduler):  # type: ignore[misc]
    """Celery's own scheduler, restricted to the entries that the task names."""

    #: redbeat's receiver of `beat_init` asks every scheduler for it.
    lock_key = None

    task: Task
    _sent_once = False

    def setup_schedule(self) -> None:
        every = self.app.conf.beat_schedule
        names = self.task.asked["entries"]
        unknown = [
            f"the app's schedule has no entry {name!r}; "
            + meant(name, sorted(every), quoted=True, all_of="it has")
            for name in names
            if name not in every
        ]
        if unknown:
            self.task.fail(unknown[0], key="beat", mistakes=unknown)
        self.merge_inplace({name: self._plain(every[name]) for name in names})
        for entry in self.schedule.values():
            headers = {**(entry.options.get("headers") or {}), ENTRY_HEADER: entry.name}
            entry.options = {**entry.options, "headers": headers}

    def _plain(self, entry: Any) -> Any:
        """Without the keys that only the app's own scheduler knows."""
        if getattr(scheduler_of(self.app), "Entry", ScheduleEntry) is ScheduleEntry:
            return entry
        return {key: value for key, value in dict(entry).items() if key in KEYS}

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        if not self._sent_once:
            self._sent_once = True
            for entry in list(self.schedule.values()):
                self._send(entry)
        return super().tick(*args, **kwargs)

    def _send(self, entry: ScheduleEntry) -> None:
        try:
            self.apply_async(entry, producer=self.producer, advance=True)
        except Exception as error:  # noqa: BLE001 - as in apply_entry: one bad entry must not end beat
            self.task.tell("unsent", entry=entry.name, why=str(error))
        else:
            self.task.tell("sent", entry=entry.name)


def main(path: str) -> None:
    task = Task(path)
    app: Celery = task.load("beat")
    OnlyNamed.task = task
    app.Beat(
        scheduler_cls=OnlyNamed,
        schedule=str(task.folder / "beat-schedule"),
        loglevel="INFO",
        quiet=True,
        hostname=task.asked["node"],
    ).run()


if __name__ == "__main__":
    main(sys.argv[1])
