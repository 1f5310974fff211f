"""What is in a broker, to see what a call left behind."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.world import World

if TYPE_CHECKING:
    from redis import Redis

_BINDING = "_kombu.binding."
_SEPARATOR = "\x06\x16"
#: What workers, and Celery's own way of asking them, make and take away, each in its own time.
_PASSING = re.compile(
    r"^(unacked(_index|_mutex)?|_kombu\.binding_(deadlines|permanent\..*)|celery-task-meta-.*"
    r"|_kombu\.binding\.(.*\.)?(pidbox|celeryev.*)|.*\.pidbox|celeryev\..*|amq\.gen-.*)$"
)
#: Seconds in which what is to go by itself has gone.
_SETTLES = 0.3
_PATIENCE = 30.0


@dataclass(frozen=True, order=True)
class Trace:
    """Something in a broker: a queue, or a key that is none. `key` is where Redis has it."""

    kind: str
    name: str
    key: str = ""
    member: bytes = b""

    def __str__(self) -> str:
        return f"the {self.kind} {self.name}"


class Traces(Protocol):
    """What there is in one kind of broker."""

    def before(self) -> frozenset[Trace]:
        """What there is before something is called."""
        ...

    def after(self, world: str) -> frozenset[Trace]:
        """What there is after it was called in the world of this name."""
        ...

    def remove(self, traces: Iterable[Trace]) -> None: ...

    def close(self) -> None: ...


def traces_of(world: World, queues: Iterable[str]) -> Traces:
    """Of the world's broker. queues: those that the app knows, into which others than probes send."""
    if world.sandbox.launch.url.startswith("redis"):
        return _OnRedis(world.sandbox.launch.url, frozenset(queues))
    return _OnRabbit(world, frozenset(queues))


def new_since(before: frozenset[Trace], traces: Traces, world: str) -> list[Trace]:
    """What has come, and stays."""
    over = time.monotonic() + _SETTLES
    while (new := traces.after(world) - before) and time.monotonic() < over:
        time.sleep(0.02)
    return sorted(new)


class _OnRedis:
    def __init__(self, url: str, queues: frozenset[str]) -> None:
        from redis import Redis

        self._queues = queues
        self._client: Redis = Redis.from_url(url, socket_timeout=5)

    def after(self, _: str) -> frozenset[Trace]:
        return self.before()

    def before(self) -> frozenset[Trace]:
        found: set[Trace] = set()
        for key in (key.decode(errors="replace") for key in self._client.scan_iter(count=1000)):
            if _PASSING.match(key) or key.partition(_SEPARATOR)[0] in self._queues:
                continue
            if not key.startswith(_BINDING):
                found.add(Trace("key", key, key))
                continue
            for member in self._client.sscan_iter(key, count=1000):
                queue = member.decode(errors="replace").rpartition(_SEPARATOR)[2]
                found.add(Trace("queue", queue, key, member))
        return frozenset(found)

    def remove(self, traces: Iterable[Trace]) -> None:
        for trace in traces:
            if trace.member:
                self._client.srem(trace.key, trace.member)
            else:
                self._client.delete(trace.key)

    def close(self) -> None:
        self._client.close()


class _OnRabbit:
    """Its own tool takes a second to say what there is, so it is asked after two worlds only.

    What was left behind in others before is found then, too.
    """

    def __init__(self, world: World, queues: frozenset[str]) -> None:
        self._world = world
        self._queues = queues
        self._first = self._listed()

    def before(self) -> frozenset[Trace]:
        return self._first

    def after(self, world: str) -> frozenset[Trace]:
        return self._listed() if world in ("", "new_broker") else self._first

    def _listed(self) -> frozenset[Trace]:
        launch = self._world.sandbox.launch
        tool = Path(launch.argv[0]).with_name("rabbitmqctl")
        try:
            done = subprocess.run(  # noqa: S603 - beside the server that we started
                [str(tool), "-q", "list_queues", "name", "--no-table-headers"],
                env={"PATH": os.environ.get("PATH", os.defpath), **launch.env},
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SandboxError(f"RabbitMQ does not say what queues it has: {error}") from error
        names = (line.strip() for line in done.stdout.splitlines())
        found = {name for name in names if name and not _PASSING.match(name)} - self._queues
        return frozenset(Trace("queue", name) for name in found)

    def remove(self, traces: Iterable[Trace]) -> None:
        from kombu import Connection

        with Connection(self._world.sandbox.launch.url, connect_timeout=5) as connection:
            for trace in traces:
                connection.default_channel.queue_delete(trace.name)

    def close(self) -> None:
        pass
