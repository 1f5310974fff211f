"""Whether workers answer, and are the workers that were promised."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass

from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import first_names, plural, silent
from pytest_celery_health.durations import Duration, seconds, spell
from pytest_celery_health.facts import Ask, AskApp, AskWorkers, Snapshot, Unseen, Worker, Workers
from pytest_celery_health.verdict import Finding

_VERSION = re.compile(r"\d+(\.\w+)*\.?$")


@dataclass(frozen=True)
class WorkersAnswer(Check):
    """Workers answer remote control.

    at_least: how many workers must answer; 1, unless `names` says who.
    names: node names that must answer.
    tasks: names of tasks that some worker must have registered, or "all": every task the app defines.
    pool_size: pool processes or threads that each worker must have at least.
    up_for: every worker must have been up for this long (a crash loop is younger).
    clock_within: how far a worker's clock may be from ours.
    version: the prefix that every worker's Celery version must have, "5.7" say.
    silent_at_most: mailboxes that may be subscribed and silent (frozen workers, or solo workers at work).

    Source: `ping`, `stats`, `registered`, and for the clock a `worker-heartbeat` event.
    """

    _: KW_ONLY
    at_least: int | None = None
    names: tuple[str, ...] = ()
    tasks: tuple[str, ...] | str = ()
    pool_size: int | None = None
    up_for: Duration | None = None
    clock_within: Duration | None = None
    version: str = ""
    silent_at_most: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.tasks, str) and self.tasks != "all":
            raise ValueError(f"tasks is {self.tasks!r}; write 'all' or a list of task names")
        if not all(name.strip() for name in self.names):
            raise ValueError('names has an empty name; write those of workers, ["w1@host"] say')
        if not isinstance(self.tasks, str) and not all(name.strip() for name in self.tasks):
            raise ValueError('tasks has an empty name; write those of tasks, ["shop.tasks.charge"] say')
        if self.at_least is not None and self.at_least < 1:
            raise ValueError(f"at_least is {self.at_least}, which no fleet can miss; write 1 or more")
        if self.pool_size is not None and self.pool_size < 1:
            raise ValueError(f"pool_size is {self.pool_size}; write 1 or more")
        if self.silent_at_most < 0:
            raise ValueError(f"silent_at_most is {self.silent_at_most}; write 0 or more")
        self._in_seconds("up_for", "clock_within")
        if self.up_for == 0:
            raise ValueError("up_for is 0, which every worker meets")
        if self.clock_within == 0:
            raise ValueError("clock_within is 0, which no two clocks meet")
        if self.version and not _VERSION.match(self.version):
            raise ValueError(f'version is "{self.version}", which no version of Celery is; write "5.6", say')

    def asks(self) -> Iterable[Ask]:
        details = set()
        if self.pool_size is not None or self.up_for is not None:
            details.add("stats")
        if self.version:
            details.add("version")
        if self.tasks:
            details.add("registered")
        if self.clock_within is not None:
            details.add("clock")
        yield AskWorkers(frozenset(details), frozenset(self.names), self.at_least or 0)
        if self.tasks == "all":
            yield AskApp()

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        workers = seen.workers
        if isinstance(workers, Unseen):
            yield Finding.unseen("", workers, hint="workers")
            return
        if self.at_least or not self.names:
            yield self._count(workers)
        for name in self.names:
            yield self._named(name, workers)
        yield from self._twins(workers)
        yield from self._silent(workers)
        if self.tasks and workers.answered:
            yield from self._tasks(workers, seen)
        for worker in workers.answered:
            yield from self._each(worker)

    def _count(self, workers: Workers) -> Finding:
        wanted = self.at_least or 1
        count = len(workers.answered)
        names = hint = first_names([worker.name for worker in workers.answered])
        if workers.beats:
            beats = ", ".join(workers.beats)
            hint = (
                f"{names}; {beats} answers too, but is beat"
                if names
                else f"only {beats} answers, which is beat"
            )
        elif not names:
            hint = "busy solo workers, frozen ones and dead ones all stay silent"
        return Finding(
            count >= wanted,
            plural(count, "worker") if count else "no worker",
            "answered",
            f"at least {wanted}",
            hint,
            {"workers": count},
        )

    def _named(self, name: str, workers: Workers) -> Finding:
        names = [worker.name for worker in workers.answered]
        if name in names:
            return Finding(True, name, "answered", "an answer")
        if name in workers.silent:
            return Finding(False, name, "is subscribed but silent: busy or frozen", "an answer")
        hint = f"{first_names(names)} answered" if names else "no worker answered"
        return Finding(False, name, "did not answer: busy or gone", "an answer", hint)

    def _twins(self, workers: Workers) -> Iterator[Finding]:
        for worker in workers.answered:
            if worker.answers > 1:
                yield Finding(
                    False,
                    worker.name,
                    f"is the name of {worker.answers} workers",
                    "one name for each",
                    "start each with -n NAME@%h",
                    {f"{worker.name}.answers": worker.answers},
                )

    def _silent(self, workers: Workers) -> Iterator[Finding]:
        unheard = workers.unheard
        if unheard > self.silent_at_most:
            yield Finding(
                False,
                plural(unheard, "mailbox", "mailboxes"),
                f"{'is' if unheard == 1 else 'are'} subscribed but silent",
                f"at most {self.silent_at_most}" if self.silent_at_most else "none",
                "a frozen worker, a busy solo worker, or a stalled beat",
                {"silent": unheard},
            )

    def _tasks(self, workers: Workers, seen: Snapshot) -> Iterator[Finding]:
        wanted: frozenset[str]
        if self.tasks == "all":
            if isinstance(seen.app, Unseen):
                yield Finding.unseen("tasks", seen.app)
                return
            if isinstance(seen.app.tasks, Unseen):
                yield Finding.unseen("tasks", seen.app.tasks)
                return
            wanted = seen.app.tasks
            if not wanted:
                yield Finding(None, "tasks", f"{seen.app.name or 'the app'} defines no task")
                return
        else:
            wanted = frozenset(self.tasks)
        registered: set[str] = set()
        blind: tuple[str, Unseen] | None = None
        for worker in workers.answered:
            if isinstance(worker.tasks, Unseen):
                blind = worker.name, worker.tasks
            else:
                registered |= worker.tasks
        missing = sorted(wanted - registered)
        if missing and blind:
            yield Finding.unseen(*blind)
            return
        figures = {"missing": len(missing)}
        unheard = workers.unheard
        if missing and unheard:
            lacking = f"no worker that answered has {first_names(missing, 3)} registered"
            yield Finding(None, "tasks", f"{lacking}, and {silent(unheard)}", figures=figures)
            return
        if missing:
            yield Finding(
                False,
                "no worker",
                f"has {first_names(missing, 3)} registered",
                "every task on some worker" if self.tasks == "all" else "on some worker",
                "does the worker import the module (imports, include, autodiscover_tasks)?",
                figures,
            )
        else:
            yield Finding(True, plural(len(wanted), "task"), "registered", "on some worker", figures=figures)

    def _each(self, worker: Worker) -> Iterator[Finding]:
        for problem in worker.malformed:
            yield Finding(
                False,
                worker.name,
                f"sent a malformed reply: {problem}",
                "a reply as Celery sends it",
            )
        if self.pool_size is not None:
            size = worker.pool_size
            if isinstance(size, Unseen):
                yield Finding.unseen(worker.name, size)
            else:
                yield Finding(
                    size >= self.pool_size,
                    worker.name,
                    f"has a pool of {size}",
                    f"at least {self.pool_size}",
                    figures={f"{worker.name}.pool_size": size},
                )
        if self.up_for is not None:
            if isinstance(worker.uptime, Unseen):
                yield Finding.unseen(worker.name, worker.uptime)
            else:
                yield Finding(
                    worker.uptime >= seconds(self.up_for),
                    worker.name,
                    f"has been up for {spell(worker.uptime)}",
                    f"at least {spell(seconds(self.up_for))}",
                    "a worker that is always young is in a crash loop",
                    {f"{worker.name}.uptime": worker.uptime},
                )
        if self.clock_within is not None:
            offset = worker.clock_offset
            if isinstance(offset, Unseen):
                yield Finding.unseen(worker.name, offset)
            else:
                yield Finding(
                    abs(offset) <= seconds(self.clock_within),
                    worker.name,
                    f"has a clock {spell(abs(offset))} {'ahead of' if offset > 0 else 'behind'} ours",
                    f"within {spell(seconds(self.clock_within))}",
                    figures={f"{worker.name}.clock_offset": offset},
                )
        if self.version:
            if isinstance(worker.version, Unseen):
                yield Finding.unseen(worker.name, worker.version)
            else:
                yield Finding(
                    f"{worker.version}.".startswith(f"{self.version.rstrip('.')}."),
                    worker.name,
                    f"runs Celery {worker.version}",
                    self.version,
                )
