"""The workers of drills, kept from one drill to the next as long as they are whole; and the drills."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.record import answers as record_answers
from pytest_celery_health.record.recording import Entry, HandlerCall, Recording, SignalCall, from_json
from pytest_celery_health.record.signals import RUNNING
from pytest_celery_health.sandbox import Sandbox, SandboxError
from pytest_celery_health.sandbox.brokers import write_private
from pytest_celery_health.sandbox.children import door
from pytest_celery_health.sandbox.client import KeeperGoneError
from pytest_celery_health.sandbox.drills import rig_files
from pytest_celery_health.sandbox.drills.ends import ENDS, POOLS, End
from pytest_celery_health.sandbox.drills.rig_files import ANSWERS, records
from pytest_celery_health.sandbox.drills.shutdown import Shutdown
from pytest_celery_health.sandbox.drills.stage import OverError, Stage, about
from pytest_celery_health.sandbox.processes import alive
from pytest_celery_health.sandbox.spec import SandboxSpec
from pytest_celery_health.spelling import meant

#: Seconds that a drill may take, and that a worker gets between its first signal and SIGKILL.
WITHIN = 10.0
GRACE = 3.0
#: Seconds that the running task of a shutdown goes on after the signal.
RUNS_FOR = 0.2
#: Seconds that a worker gets to replace a child that died: a new worker takes not much longer.
_RESTORE = 0.3
_TICK = 0.005
_RIG = "pytest_celery_health.sandbox.drills.rig:rig"


class DrillError(AssertionError):
    """The end was not reached, or is not possible. The message says why, and what was seen instead."""


class ImpossibleError(DrillError):
    """This pool, or this Celery, does not know the end."""


@dataclass(frozen=True, repr=False)
class Drill(Recording):
    """What handlers did while a real worker took a task to an end.

    end, pool, celery: what was drilled, where.
    exit_code: of the worker's main process, -9 for SIGKILL; None if it survived.
    still_running: handlers that had not come back at the drill's deadline.
    shutdown: what became of the worker's tasks, where the worker was ended.
    """

    _: KW_ONLY
    end: str = ""
    pool: str = ""
    celery: str = ""
    exit_code: int | None = None
    still_running: tuple[HandlerCall, ...] = ()
    shutdown: Shutdown | None = None

    def __repr__(self) -> str:
        told = super().__repr__().removeprefix("<Recording")
        more = f"; {len(self.still_running)} handlers were still running" if self.still_running else ""
        return f"<Drill {self.end} ({self.pool}){told[:-1]}{more}>"


@dataclass
class Worker:
    """A worker that records, and what is known of it."""

    name: str
    pool: str
    folder: Path
    serializer: str = "json"
    exit_code: int | None = None
    _children: set[int] = field(default_factory=set)
    _read: int = 0
    _rest: bytes = b""

    @property
    def node(self) -> str:
        return f"{self.name}@sandbox"

    @property
    def queue(self) -> str:
        return queue_of(self.name)

    @property
    def records(self) -> Path:
        return records(self.folder, self.name)

    @property
    def gone(self) -> bool:
        return self.exit_code is not None

    def news(self) -> list[Entry]:
        """What its processes recorded since this was last asked."""
        found: list[Entry] = []
        with suppress(FileNotFoundError), self.records.open("rb") as file:
            file.seek(self._read)
            data = file.read()
            self._read += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                with suppress(ValueError):
                    found.append(from_json(line.decode()))
        for each in found:
            if isinstance(each, SignalCall) and each.signal == "worker_process_init":
                self._children.add(each.pid)
        return found

    def restore(self) -> bool:
        """Whether its pool has a child, if it has any; if not, have Celery start another at once."""
        if not self._children or any(alive(pid) for pid in self._children):
            return True
        self.ask(do="look")
        return False

    def ask(self, *, patience: float = door.PATIENCE, **what: Any) -> dict[str, Any] | None:
        """What its main process says within so many seconds; None when there is none any more."""
        return door.ask(rig_files.door(self.folder, self.name), patience, **what)


def queue_of(name: str) -> str:
    return f"celery_health.{name}"


class Drills:
    """Drills of one app. Its broker starts with the first; close() ends everything.

    spec: of the contract; how many workers there are and what they consume is not taken from it.
    concurrency: processes or threads of a worker. ports: on which its servers listen, by those that they
    think of.
    """

    def __init__(
        self,
        spec: SandboxSpec,
        app: AppSpec,
        *,
        concurrency: int = 1,
        ports: Mapping[int, int] | None = None,
    ) -> None:
        self._spec = spec
        self._app = app
        self._concurrency = concurrency
        self._ports = dict(ports or {})
        self._sandbox: Sandbox | None = None
        self._workers: dict[str, Worker] = {}
        self._number = 0

    @property
    def pool(self) -> str:
        """The pool of a drill that names none."""
        return self._spec.pool or POOLS[0]

    def another(
        self,
        *,
        concurrency: int = 1,
        ports: Mapping[int, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Drills:
        """A second crew of the same app, with a broker of its own: for another thread, or with more `env`."""
        app = replace(self._app, env={**self._app.env, **(env or {})})
        return Drills(self._spec, app, concurrency=concurrency, ports=ports)

    def worker(self, pool: str = "", task: str = "") -> tuple[Sandbox, Worker]:
        """The worker of this pool, that `task` can be sent to, and its sandbox. Raises as a drill does."""
        end, pool = ENDS["success"], pool or self.pool
        _refuse(end, pool)
        worker = self._take(end, pool, task)
        return self._running(), worker

    def close(self) -> None:
        """End all workers and the broker."""
        sandbox, self._sandbox = self._sandbox, None
        workers, self._workers = self._workers, {}
        if sandbox is not None:
            with suppress(KeeperGoneError):
                sandbox.end_workers(*(worker.name for worker in workers.values()))  # no need to stop in order
            sandbox.close()

    def __call__(
        self,
        end: str | End,
        *,
        task: str = "",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        pool: str = "",
        answers: Mapping[str, record_answers.Answer] | None = None,
        within: float = WITHIN,
        grace: float = GRACE,
        runs_for: float = RUNS_FOR,
    ) -> Drill:
        """Take a task to this end in a real worker, and return what was recorded.

        end: a name of `ENDS`, or an End. pool: "prefork" (the default), "solo" or "threads".
        task: a registered task that shall come to the end, with `args` and `kwargs`, in place of one of the
        drill's own; its own code is not run.
        answers: what HTTP servers answer, by host: a status, (status, body), "refuses" or "hangs"; "*" stands
        for all others, which answer 200. Nothing leaves the machine.
        within: seconds that the drill may take; a handler that hangs ends it then.
        grace, runs_for: of a shutdown, the seconds between its signal and SIGKILL, and those that the running
        task takes after the signal.

        Raises DrillError when the end is not possible or was not reached, SandboxError when no worker starts.
        """
        end = _known(end)
        pool = pool or self.pool
        _refuse(end, pool)
        said = record_answers.check(answers or {})
        worker = self._take(end, pool, task)
        sandbox = self._running()
        assert sandbox.target.app is not None
        celery = sandbox.target.app.celery_version
        part = sandbox.folder / f"{ANSWERS}.part"
        write_private(part, json.dumps(said))
        part.rename(sandbox.folder / ANSWERS)
        stage = Stage(
            sandbox,
            worker,
            end,
            task=task,
            args=args,
            kwargs=kwargs or {},
            within=within,
            grace=grace,
            runs_for=runs_for,
        )
        over: OverError | None = None
        try:
            self._play(stage)
        except OverError as error:
            over = error
        finally:
            stage.disconnect()
            if over is not None or stage.gone or end.fresh or pool in end.forgotten:
                self._dismiss(worker)
            if stage.broker_lost:  # the others wait for seconds before they try again
                for other in list(self._workers.values()):
                    self._dismiss(other)
        found = self._result(stage, celery)
        if over is not None and not found.still_running:
            raise DrillError(self._not_reached(stage, found, over))
        return found

    def _play(self, stage: Stage) -> None:
        end, worker = stage.end, stage.worker
        before: dict[str, Any] = {}
        if end.options:
            before = worker.ask(do="set", task=stage.task, options=dict(end.options)) or {}
        try:
            end.play(stage)
            if end.until:
                stage.wait_for(*end.until)
                if not stage.sent(*end.until) and worker.pool not in end.breaks:
                    raise OverError(" or ".join(end.until))
            if end.logged:
                stage.wait(lambda: stage.logged(end.logged), f"the log record {end.logged!r}")
            if worker.pool in end.breaks:
                stage.wait(lambda: stage.gone, "the worker's end")
            stage.wait(stage.settled, "the end of all handlers")
        finally:
            if before:
                worker.ask(do="set", task=stage.task, options=before)

    def _result(self, stage: Stage, celery: str) -> Drill:
        entries = [each for each in stage.entries if stage.until is None or each.at < stage.until]
        running = tuple(each for each in entries if isinstance(each, HandlerCall) and each.error == RUNNING)
        of_it = [each for each in entries if isinstance(each, SignalCall) and about(each, stage.id)]
        states = [each.arguments.get("state") for each in of_it if each.signal == "task_postrun"]
        results = [each.arguments.get("result") for each in of_it if each.signal == "task_success"]
        return Drill(
            tuple(entries),
            task=stage.task,
            state=(states[-1] if states else None) or "",
            runs=sum(each.signal == "task_prerun" for each in of_it),
            result=results[-1] if results else None,
            end=stage.end.name,
            pool=stage.worker.pool,
            celery=celery,
            exit_code=stage.worker.exit_code,
            still_running=running,
            shutdown=stage.shutdown,
        )

    def _not_reached(self, stage: Stage, found: Drill, over: OverError) -> str:
        seen = list(dict.fromkeys(each.signal for each in found.signals))
        told = f"{stage.end.name}: saw {', '.join(seen) or 'no signal'}; waited in vain for {over}"
        if stage.worker.gone:
            told += f" (the worker ended with {stage.worker.exit_code})"
        log = self._running().log(stage.worker.name)
        return f"{told}\nlast lines of the worker's log:\n{log}" if log else told

    # Workers.

    def _take(self, end: End, pool: str, task: str) -> Worker:
        """A worker that is up, of its own for an end that needs one."""
        sandbox = self._sandbox
        if sandbox is None:
            self._number = 1
            worker = Worker("w1", pool, Path())
            spec = replace(
                self._spec,
                workers=1,
                beat=(),
                queues=(worker.queue,),
                pool=pool,
                concurrency=self._concurrency,
            )
            sandbox = Sandbox(spec, self._app, rigged=_RIG, ports=self._ports)
            sandbox.start()
            self._sandbox = sandbox
            self._found(sandbox, worker)
        self._refuse_task(sandbox, end, task)
        assert sandbox.target.app is not None
        _refuse_version(end, sandbox.target.app.celery_version)
        kept = self._workers.get(pool)
        if kept is not None and not end.fresh:
            if self._is_whole(sandbox, kept):
                return kept
            self._dismiss(kept)
        self._number += 1
        worker = Worker(f"w{self._number}", pool, sandbox.folder)
        sandbox.add_worker(
            worker.name, pool=pool, concurrency=self._concurrency, queues=(worker.queue,), conf=end.conf
        )
        self._found(sandbox, worker, keep=not end.fresh)
        if not end.starts:
            worker.news()
        return worker

    def _is_whole(self, sandbox: Sandbox, worker: Worker) -> bool:
        if sandbox.exit_code(worker.name) is not None:
            return False
        over = time.monotonic() + _RESTORE
        while worker.news() or not worker.restore():
            if time.monotonic() > over:
                return False
            time.sleep(_TICK)
        return True

    def _found(self, sandbox: Sandbox, worker: Worker, *, keep: bool = True) -> None:
        worker.folder = sandbox.folder
        worker.serializer = sandbox.await_worker(worker.name).get("serializer", "json")
        if keep:
            self._workers[worker.pool] = worker

    def _dismiss(self, worker: Worker) -> None:
        if self._workers.get(worker.pool) is worker:
            del self._workers[worker.pool]
        if self._sandbox is not None:
            self._sandbox.end_workers(worker.name)

    def _running(self) -> Sandbox:
        if self._sandbox is None:
            raise SandboxError("no drill is under way")
        return self._sandbox

    def _refuse_task(self, sandbox: Sandbox, end: End, task: str) -> None:
        app = sandbox.target.app
        if not task or app is None or task in app.tasks:
            return
        hint = meant(task, sorted(app.tasks), quoted=True, all_of="it has")
        raise DrillError(f"{end.name}: the app has no task {task!r}; {hint}")


def _known(end: str | End) -> End:
    if isinstance(end, End):
        return end
    if end in ENDS:
        return ENDS[end]
    raise DrillError(f"{end!r} is no end of a drill; {meant(end, ENDS, quoted=True)}")


def _refuse(end: End, pool: str) -> None:
    if pool not in POOLS:
        raise DrillError(f"{end.name}: drills know the pools {', '.join(POOLS)}, not {pool!r}")
    if pool in end.impossible:
        raise ImpossibleError(f"{end.name} is not possible with the pool {pool}: {end.impossible[pool]}")


def _refuse_version(end: End, celery: str) -> None:
    def key(version: str) -> list[int]:
        return [int(part) for part in version.split(".")[:2]]

    if end.since and key(celery) < key(end.since):
        raise ImpossibleError(
            f"{end.name}: this is Celery {celery}, which has none; Celery {end.since} is the first"
        )
