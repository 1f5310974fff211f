"""What the fixture `celery_fleet` gives a test: simulated workers, filled queues, events; a real broker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from celery import Celery
from celery.events import EventDispatcher

from pytest_celery_health.masking import mask
from pytest_celery_health.project.child.describe import registered
from pytest_celery_health.sandbox.fleet.event_fields import SOME_TASK, completed
from pytest_celery_health.sandbox.fleet.simulated import Fleet
from pytest_celery_health.sandbox.fleet.worker import SimulatedWorker, State
from pytest_celery_health.sandbox.here import pointed
from pytest_celery_health.sandbox.queues.filling import Filling

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

End = Literal["succeeded", "failed", "retried", "revoked", "rejected"]


class CeleryFleet:
    """Simulated workers, filled queues and published events on a broker of the test's own.

    app: the app under test, which uses this broker until the end.
    url, result: of the broker and the result backend. options: transport options for both.
    env: variables that shall hold the broker's URL. broker: what it is, for a report.
    """

    def __init__(
        self,
        app: Celery,
        url: str,
        result: str = "",
        *,
        options: Mapping[str, Any] | None = None,
        env: Iterable[str] = (),
        broker: str = "",
    ) -> None:
        self.app = app
        self.url = url
        self.broker = broker
        self._pointing = (result, dict(options or {}), tuple(env))
        self._stack = ExitStack()
        self._filling: Filling | None = None
        self._dispatchers: dict[str, EventDispatcher] = {}
        self._filled: dict[str, list[int]] = {}
        self._published: dict[str, int] = {}

    def __enter__(self) -> Self:
        result, options, env = self._pointing
        with ExitStack() as stack:
            stack.enter_context(pointed(self.app, self.url, result, options=options, env=env))
            conf = self.app.conf
            self._fleet = stack.enter_context(
                Fleet(
                    self.url,
                    control_exchange=conf.control_exchange,
                    event_exchange=conf.event_exchange,
                    options=conf.broker_transport_options,
                    serializer=conf.task_serializer,
                    accept=conf.accept_content,
                    tasks=self._tasks,
                )
            )
            stack.callback(self._close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __repr__(self) -> str:
        return f"<celery_fleet on {self.broker or mask(self.url)}: {len(self._fleet)} workers>"

    def __iter__(self) -> Iterator[SimulatedWorker]:
        return iter(self._fleet)

    def __len__(self) -> int:
        return len(self._fleet)

    # Workers.

    def worker(self, name: str, **state: Unpack[State]) -> SimulatedWorker:
        """Add a worker, which answers from the moment this returns. What it can say of itself: `State`."""
        return self._fleet.worker(name, **state)

    def workers(self, count: int, name: str = "w{}@sim", **state: Unpack[State]) -> list[SimulatedWorker]:
        """Add `count` equal workers at once, named by their number from 1."""
        return self._fleet.workers(count, name, **state)

    def beat(self, name: str = "celerybeat@sim") -> SimulatedWorker:
        """Add a beat with remote control, as in Celery 5.7: it answers ping, and nothing else."""
        return self._fleet.beat(name)

    @property
    def asked(self) -> Mapping[str, int]:
        """How often workers were asked each command."""
        return {command: len(tickets) for command, tickets in self._fleet.asked.items()}

    # Queues.

    def queue(
        self,
        name: str,
        ready: int = 0,
        *,
        priorities: Mapping[int, int] | None = None,
        unacked: int = 0,
        unacked_for: float = 60.0,
        task: str = "",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        eta: datetime | float | None = None,
        expires: datetime | float | None = None,
    ) -> list[str]:
        """Put task messages into a queue, and return their tasks' ids.

        ready: how many without a priority. priorities: how many more, by priority.
        unacked: how many more that a worker has taken and not acknowledged; for how many seconds, on Redis.
        task: the name of their task, by default the app's first. eta, expires: of each, as a time, or in
        seconds from now; negative ones are over.

        The queue is declared as the app would declare it; with no messages it is there, and empty.
        """
        wanted: dict[int | None, int] = {None: ready}
        for priority, count in (priorities or {}).items():
            wanted[priority] = count
        for count in (*wanted.values(), unacked):
            if count < 0:
                raise ValueError(f"a queue cannot hold {count} messages")
        if self._filling is None:
            self._filling = Filling(self.app)
        ids = self._filling.put(
            name,
            ready=wanted,
            unacked=unacked,
            unacked_for=unacked_for,
            task=task or self._some_task(),
            args=args,
            kwargs=kwargs or {},
            eta=_time(eta),
            expires=_time(expires),
        )
        told = self._filled.setdefault(name, [0, 0])
        told[0] += sum(wanted.values())
        told[1] += unacked
        return ids

    def heartbeat(self, key: str, *, ago: float, epoch: bool = False) -> None:
        """Write beat's heartbeat to a key, as of so many seconds ago: an ISO text in UTC, or an epoch.

        Raises TypeError where the broker is not Redis.
        """
        if not self.url.startswith(("redis://", "rediss://")):
            raise TypeError(f"{self.broker or mask(self.url)} has no keys: a heartbeat is written to Redis")
        import redis

        at = time.time() - ago
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            client.set(key, str(at) if epoch else datetime.fromtimestamp(at, timezone.utc).isoformat())

    # Events.

    def event(self, type: str, /, *, worker: str = "", ago: float = 0.0, **fields: Any) -> None:  # noqa: A002
        """Publish an event as a worker would; what is not given is made up.

        worker: who sends it, by default the first one. ago: seconds since it happened.
        """
        sender = self._dispatcher(worker or next((each.name for each in self), "w1@sim"))
        offset = next((each.state["clock_offset"] for each in self if each.name == sender.hostname), 0.0)
        told = {"timestamp": time.time() + offset - ago, **completed(type, fields, self.app)}
        sender.send(type, **told)
        self._published[type] = self._published.get(type, 0) + 1

    def task_events(
        self,
        task: str = "",
        *,
        ends: End | None = "succeeded",
        runtime: float = 0.1,
        waited: float = 0.0,
        worker: str = "",
        ago: float = 0.0,
        **fields: Any,
    ) -> str:
        """Publish the events of a task's life, and return its id.

        ends: None for one that runs still. runtime, waited: seconds that it ran, and that it waited before.
        ago: seconds since it ended. fields: of its end, such as `exception`.
        """
        uuid, name = str(uuid4()), task or self._some_task()
        for type_, before, more in (
            ("task-received", runtime + waited, {"name": name}),
            ("task-started", runtime, {}),
            (f"task-{ends}", 0.0, {**({"runtime": runtime} if ends == "succeeded" else {}), **fields}),
        ):
            if ends is not None or type_ != "task-None":
                self.event(type_, worker=worker, ago=ago + before, uuid=uuid, **more)
        return uuid

    # The end.

    def told(self) -> str:
        """What there was, and what was asked, in a few lines: the evidence of a test that failed."""
        workers = [worker.name for worker in self]
        shown = ", ".join(workers[:5]) + (f", ... ({len(workers):,} workers)" if len(workers) > 5 else "")
        asked = ", ".join(f"{command} {times}x" for command, times in self.asked.items())
        lines = [f"broker: {self.broker or mask(self.url)}", f"workers: {shown or 'none'}"]
        if workers:
            lines.append(f"asked: {asked or 'nothing, by nobody who uses this broker'}")
        for name, (ready, unacked) in self._filled.items():
            lines.append(f"queue {name}: {ready:,} ready, {unacked:,} unacked were put there")
        if self._published:
            lines.append("events: " + ", ".join(f"{name} {n}x" for name, n in self._published.items()))
        return "\n".join(lines)

    def _close(self) -> None:
        try:
            if self._filling is not None:
                self._filling.close()
        finally:
            for dispatcher in self._dispatchers.values():
                dispatcher.connection.release()

    def _tasks(self) -> dict[str, dict[str, str]]:
        self.app.finalize()  # as a worker does
        return registered(self.app)

    def _some_task(self) -> str:
        own = (name for name in sorted(self.app.tasks) if not name.startswith("celery."))
        return next(own, SOME_TASK)

    def _dispatcher(self, hostname: str) -> EventDispatcher:
        if hostname not in self._dispatchers:
            connection = next(
                (each.connection for each in self._dispatchers.values()), None
            ) or self.app.connection_for_write(connect_timeout=4)
            self._dispatchers[hostname] = self.app.events.Dispatcher(connection, hostname=hostname)
        return self._dispatchers[hostname]


def _time(given: datetime | float | None) -> datetime | None:
    if given is None or isinstance(given, datetime):
        return given
    return datetime.now(timezone.utc) + timedelta(seconds=given)
