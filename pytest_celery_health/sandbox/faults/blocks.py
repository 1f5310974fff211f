"""A broker that takes nothing more: its memory is full.

RabbitMQ stops reading from who publishes, and goes on delivering. Redis refuses what writes: a worker that
takes a task from it, or answers remote control, cannot note that there, and ends.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.brokers import Launch, converse
from pytest_celery_health.sandbox.faults.base import BROKER, Fault, ImpossibleError

if TYPE_CHECKING:
    from pytest_celery_health.sandbox.world import World

#: Seconds that RabbitMQ's own tool, which starts an Erlang of its own, gets.
_TOOL_WITHIN = 60.0
_ANSWERS_WITHIN = 5.0
#: Seconds in which it says so to who publishes.
_TOLD_WITHIN = 0.5
_NOBODYS = "celery-health.nobody"


@contextmanager
def _blocks(world: World) -> Iterator[None]:
    fill = partial(_fill, world)
    try:
        fill(True)
        world.fill = fill
        yield
    finally:
        world.fill = None
        fill(False)
    world.members.mend()


def _fill(world: World, full: bool) -> None:
    """Have the broker that the world has now take nothing more, or everything again."""
    launch = world.sandbox.launch
    set_limit, blocked = _of_rabbitmq(launch) if launch.url.startswith("amqp") else _of_redis(world, launch)
    set_limit(full)
    still = "does not block" if full else "still blocks"
    world.wait(lambda: blocked() == full, f"the broker {still} publishers")


def _of_redis(world: World, launch: Launch) -> tuple[Callable[[bool], None], Callable[[], bool]]:
    url = urlsplit(launch.url)

    def say(command: str) -> bytes:
        return converse(url.port or 0, f"AUTH {url.password}\r\n{command}\r\nPING\r\n".encode(), b"+PONG")

    def set_limit(low: bool) -> None:
        heard: list[bytes] = []

        def answers() -> bool:
            heard.append(say(f"CONFIG SET maxmemory {int(low)}"))
            return heard[-1] != b""

        world.wait(answers, "the broker does not answer")
        if heard[-1].count(b"+OK") < 2:
            raise ImpossibleError(f"broker_blocks: {world.sandbox.broker} knows no limit of its memory")

    return set_limit, lambda: b"-OOM" in say(f"SETEX {_NOBODYS} 1 x")


def _of_rabbitmq(launch: Launch) -> tuple[Callable[[bool], None], Callable[[], bool]]:
    tool = str(Path(launch.argv[0]).with_name("rabbitmqctl"))

    def set_limit(low: bool) -> None:
        argv = (tool, "-q", "set_vm_memory_high_watermark", "0.000001" if low else "0.9")
        env = {**launch.env, "PATH": os.environ.get("PATH", os.defpath)}
        try:
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=_TOOL_WITHIN)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SandboxError(f"rabbitmqctl: {error}") from None
        if done.returncode:
            raise SandboxError(f"rabbitmqctl: {(done.stderr or done.stdout).strip()[-300:]}")

    return set_limit, lambda: _is_blocked(launch.url)


def _is_blocked(url: str) -> bool:
    """Whether somebody who publishes is told so."""
    import amqp

    place = urlsplit(url)
    told: list[Any] = []
    connection = amqp.Connection(
        place.netloc.rpartition("@")[2],
        place.username,
        place.password,
        connect_timeout=_ANSWERS_WITHIN,
        on_blocked=told.append,
    )
    try:
        connection.connect()
        connection.channel().basic_publish(amqp.Message("x"), routing_key=_NOBODYS)
        with suppress(TimeoutError):
            connection.drain_events(timeout=_TOLD_WITHIN)
    finally:
        connection.collect()  # not close(): who is blocked gets no answer to that
    return bool(told)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "broker_blocks",
        "The broker's memory is full: Redis refuses what writes, RabbitMQ reads no more of who publishes.",
        _blocks,
        (BROKER,),
        (BROKER,),
    ),
)
