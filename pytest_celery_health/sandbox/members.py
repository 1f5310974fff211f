"""The real workers of a world, and its beat: started, kept busy, seen to be whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_celery_health.sandbox import SandboxError, processes
from pytest_celery_health.sandbox.children import door
from pytest_celery_health.sandbox.faults import rig_files
from pytest_celery_health.sandbox.faults.base import BEAT, WHOLE_WORKER
from pytest_celery_health.sandbox.queues.messages import body_of, headers_of, new_id

if TYPE_CHECKING:
    from kombu import Connection

    from pytest_celery_health.sandbox.world import World

#: Seconds that a worker gets to stop in order, and of these alone, before its children are asked too.
_GRACE = 5.0
_GRACE_ALONE = 0.25
_PATIENCE = 5.0


@dataclass
class Member:
    """A worker of the world: what it was started with, and what it consumes when it is whole."""

    name: str
    pool: str = ""
    concurrency: int | None = None
    queues: tuple[str, ...] = ()
    serializer: str = "json"
    #: Of pool, as Celery's module has it; and how many tasks it runs at once.
    kind: str = ""
    size: int = 1
    #: Processes of the pool of one that was killed, which see by themselves that it has gone.
    orphans: list[int] = field(default_factory=list)


class Members:
    """The workers of one world. Its faults, and nobody else, call these."""

    def __init__(self, world: World) -> None:
        spec = world.spec
        self.all = {
            name: Member(name, spec.pool, spec.concurrency, spec.queues)
            for name in (f"w{number}" for number in range(1, max(spec.workers, 1) + 1))
        }
        self.started = False
        self.beating = False
        self._world = world

    # Workers.

    def start(self, *names: str) -> None:
        """Start those of these, or of all, that are not there. Returns when they answer and consume."""
        sandbox = self._world.sandbox
        missing = [self.all[name] for name in names or self.all if not self.pids(name)]
        if missing and not self.pids("broker"):
            raise SandboxError("the broker has ended")
        if self.started and len(missing) == len(self.all):
            self._put_back()
        for each in missing:
            processes.send([pid for pid in each.orphans if processes.alive(pid)], signal.SIGKILL)
            each.orphans.clear()
            sandbox.add_worker(each.name, pool=each.pool, concurrency=each.concurrency, queues=each.queues)
        for each in missing:
            each.serializer = sandbox.await_worker(each.name).get("serializer", "json")
            self._world.wait(lambda each=each: self._consumes(each), f"{each.name} does not consume")  # type: ignore[misc]
            seen = self.look(each.name)
            each.queues, each.kind, each.size = tuple(seen["queues"]), seen["pool"], seen["size"]
        self.started = True

    def restart(self, *names: str) -> None:
        """Start those of these that have ended, or are about to; end before that those that do neither."""
        for name in names:
            try:
                self._world.wait(partial(self._settles, name), f"{name} neither works nor ends", _GRACE)
            except SandboxError:
                self._world.sandbox.end_workers(name)
        self.start(*names)

    def _settles(self, name: str) -> bool:
        """Whether it has ended, or has done what could end it."""
        return not self.pids(name) or (self.ask(name, do="turn") and self._consumes(self.all[name]))

    def _put_back(self) -> None:
        """Have what workers took and did not acknowledge wait in its queues, as RabbitMQ does by itself."""
        if self._world.sandbox.target.url.startswith("redis"):
            with self._connection(visibility_timeout=0) as connection:
                connection.default_channel.qos.restore_visible(num=-1, interval=1)

    def _consumes(self, member: Member) -> bool:
        queues = (self.ask(member.name, do="look") or {}).get("queues")
        return bool(queues)

    def names(self, worker: str) -> list[str]:
        """The worker of this name; "" is all."""
        return [worker] if worker else list(self.all)

    def pids(self, name: str) -> list[int]:
        """Its main process and all below it; none if it has ended."""
        return self._world.sandbox.processes(name)

    def ask(self, name: str, **what: Any) -> Any:
        """What its main process says; None when it does not answer."""
        said = door.ask(rig_files.door(self._world.sandbox.folder, name), **what) or {}
        if "error" in said:
            raise SandboxError(f"worker {name}: {said['error']}")
        return said.get("done")

    def look(self, name: str) -> dict[str, Any]:
        """What its main process knows of itself. Raises SandboxError when it does not answer."""
        seen: dict[str, Any] | None = self.ask(name, do="look")
        if seen is None:
            raise SandboxError(f"worker {name} does not answer")
        return seen

    def consume(self, name: str, *, add: Sequence[str] = (), cancel: Sequence[str] = ()) -> None:
        """Have it consume other queues. Returns when it does, or has ended."""

        def done() -> bool:
            if self.ask(name, do="consume", add=list(add), cancel=list(cancel)):
                return True
            return not self.pids(name)

        self._world.wait(done, f"worker {name} did not change what it consumes")

    def stop(self, names: Sequence[str]) -> None:
        """End them in order, as far as they can."""
        sandbox = self._world.sandbox
        for name in names:
            sandbox.signal(name, signal.SIGTERM)
        with suppress(SandboxError):
            self._await_end(names, _GRACE_ALONE)
            return
        for name in names:
            processes.send(self.pids(name)[1:], signal.SIGTERM)
        with suppress(SandboxError):
            self._await_end(names, _GRACE)
        sandbox.end_workers(*names)

    def _await_end(self, names: Sequence[str], within: float) -> None:
        self._world.wait(lambda: not any(self.pids(name) for name in names), "workers did not end", within)

    @contextmanager
    def instead(self, *others: Member) -> Iterator[None]:
        """Have these workers, and none of the usual ones."""
        usual = self.all
        self._world.sandbox.end_workers(*usual)
        self.all = {each.name: each for each in others}
        try:
            self.start()
            yield
        finally:
            with suppress(SandboxError):
                self._world.sandbox.end_workers(*self.all)
            self.all = usual
        self.start()

    @contextmanager
    def busy(self, name: str, number: int) -> Iterator[None]:
        """Have it run so many tasks that do not end."""
        until = self._world.sandbox.folder / f"until-{new_id()}"
        solo = self.all[name].kind == "solo"  # which hears of nothing while it is busy
        try:
            self._run(name, number, until, keep=solo)
            yield
        finally:
            until.touch()

        self._await_idle(name)
        if solo:
            self.consume(name, cancel=[_queue_of(name)])
        until.unlink()

    def _await_idle(self, name: str) -> None:
        """Until it runs no task of ours, or has ended."""

        def idle() -> bool:
            seen = self.ask(name, do="look")
            return not self.pids(name) if seen is None else not seen["busy"]

        self._world.wait(idle, f"worker {name} is still busy")

    def renew(self) -> None:
        """Start workers and beat anew, those that there are.

        Some Celery's workers do not come back to a broker that was lost, and whether beat does could be seen
        only when its entries are due. Raises SandboxError.
        """
        if self.started:
            self._world.sandbox.end_workers(*self.all)
            self.start()
        if self.beating:
            self._world.sandbox.end_workers(BEAT)
            self.start_beat()

    def revive(self) -> list[str]:
        """Start workers and beat that ended without a fault of their own. Returns the workers without one."""
        held = self._world.subjects
        free = [name for name in self.all if not any(f"{each} of {name}" in held for each in WHOLE_WORKER)]
        if self.started and free:
            self.restart(*free)
        if self.beating and BEAT not in held:
            self.start_beat()
        return free if self.started else []

    def mend(self) -> None:
        """Have whatever no fault is held in be whole, after one that they all met. Raises SandboxError."""
        for name in self.revive():
            self.prove_worker(name)

    def prove_worker(self, name: str) -> None:
        """Until it consumes what it is to, and runs a task."""
        member = self.all[name]
        queues = sorted(member.queues)

        def whole() -> bool:
            seen = self.ask(name, do="look") or {}
            if seen.get("queues") != queues:
                return False
            if member.kind != "prefork" or len(seen["children"]) >= member.size:
                return True
            self.ask(name, do="turn")
            return False

        self._world.wait(whole, f"worker {name} does not consume {', '.join(queues)} with its whole pool")
        until = self._world.sandbox.folder / f"until-{new_id()}"
        until.touch()
        self._run(name, 1, until)
        self._await_idle(name)
        until.unlink()

    def _run(self, name: str, number: int, until: Path, *, keep: bool = False) -> None:
        """Have a worker run so many tasks, by a queue of its own, to `keep` or not.

        Returns when all have begun.
        """
        member = self.all[name]
        queue = _queue_of(name)
        began = until.with_name(until.name.replace("until", "began"))
        with self._queue(queue) as channel:
            self.consume(name, add=[queue])
            self._send(channel, member, queue, number, [str(began), str(until)])
            self._world.wait(
                lambda: began.exists() and began.stat().st_size >= number,
                f"worker {name} did not run {number} tasks",
            )
            if not keep:
                self.consume(name, cancel=[queue])
        began.unlink()

    def _send(self, channel: Any, member: Member, queue: str, number: int, args: list[str]) -> None:
        from kombu import Producer

        producer = Producer(channel, serializer=member.serializer)
        for _ in range(number):
            id = new_id()  # noqa: A001
            headers = headers_of(rig_files.BUSY_TASK, id, args, {})
            producer.publish(
                body_of(args, {}),
                exchange="",
                routing_key=queue,
                headers=headers,
                correlation_id=id,
                delivery_mode=1,
            )

    def delete(self, queue: str) -> None:
        """Delete a queue that nobody needs any more."""
        with self._queue(queue):
            pass

    def purge(self, queues: Sequence[str]) -> None:
        """Empty queues, those that there are."""
        with self._connection() as connection:
            for queue in queues:
                with suppress(*connection.channel_errors), connection.channel() as channel:
                    channel.queue_purge(queue)

    @contextmanager
    def _queue(self, name: str) -> Iterator[Any]:
        """A queue that is there for a while, and its channel."""
        from kombu import Exchange, Queue

        with self._connection() as connection:
            channel = connection.default_channel
            exchange = Exchange(name, type="direct")
            queue = Queue(name, exchange, routing_key=name)(channel)
            queue.declare()
            try:
                yield channel
            finally:
                queue.delete()
                exchange(channel).delete()

    def _connection(self, **options: Any) -> Connection:
        """A bounded connection of our own, straight to the broker. options: of its transport."""
        from kombu import Connection

        target = self._world.sandbox.target
        options = {**target.options, **options}
        if target.url.startswith("redis"):
            options |= {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}
        return Connection(target.url, transport_options=options, connect_timeout=_PATIENCE)

    # Beat.

    def start_beat(self) -> None:
        """Start beat if it is not there. Returns when it has sent each entry once."""
        if not self.pids(BEAT):
            self.add_beat(BEAT)
        self.beating = True

    def add_beat(self, name: str) -> None:
        """Start one more. Returns when it has sent each entry once."""
        entries = self._world.spec.beat
        self._world.sandbox.add_beat(name, entries)
        self._world.sandbox.await_beat(name, entries)


def _queue_of(name: str) -> str:
    return f"{rig_files.QUEUES}{name}"
