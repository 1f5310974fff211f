"""Random sequences of faults, nested and one after another, leave nothing behind."""

from __future__ import annotations

import os
import random
import threading
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import redis
from kombu import Connection

from conftest import IMPOSSIBLE
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import SandboxSpec, brokers
from pytest_celery_health.sandbox.faults import FAULTS, FaultError
from pytest_celery_health.sandbox.faults.base import BEAT, WORKERS
from pytest_celery_health.sandbox.world import World
from tests.faults.witness import direct, greeting, keys
from tests.sandbox.remains import Remains
from tests.support.timing import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: Of which most take seconds: a worker starts anew.
HEAVY = {
    "no_workers",
    "worker_killed",
    "warm_shutdown",
    "worker_busy_solo",
    "broker_restarts_empty",
    "broker_fails_over",
}


def arguments(name: str, dice: random.Random) -> dict[str, Any]:
    if name.startswith("host"):
        return {"host": dice.choice(["hooks.slack.com", "events.pagerduty.com"])}
    if name.endswith("_slow"):
        return {"latency": dice.choice([0.01, 5.0])}
    if name.endswith("_hangs_after"):
        return {"replied": dice.randrange(10)}
    return {}


def use(world: World, dice: random.Random) -> None:
    """What code under test may do, and leave undone: connections are abandoned in any state."""
    url = dice.choice([world.url, world.result]).rpartition(";")[2]
    if not url.startswith("redis"):
        greeting(world.url.rpartition(";")[2], b"AMQP\x00\x00\x09\x01"[: dice.randrange(1, 9)], silence=0.02)
        return
    client = redis.Redis.from_url(url, socket_timeout=0.02, socket_connect_timeout=0.02, retry=None)
    with client, suppress(redis.RedisError):
        client.ping()
        client.echo("x" * dice.randrange(1, 100_000))


def play(world: World, dice: random.Random, names: list[str]) -> None:
    """One sequence, as far as its faults can be held beside each other."""
    with ExitStack() as stack:
        for name in names:
            try:
                stack.enter_context(world.hold(name, **arguments(name, dice)))
            except FaultError as error:
                if "cannot be held beside" not in str(error):
                    raise
                continue
            use(world, dice)
            if dice.random() < 0.4:
                stack.close()
    use(world, dice)


@pytest.mark.parametrize(("broker", "sequences"), [("", 200), ("rabbitmq-server", 30)])
def test_random_sequences_leave_nothing_behind(broker: str, sequences: int, spec: AppSpec) -> None:
    try:
        brokers.choose(broker)
    except brokers.UnavailableError as error:
        pytest.skip(f"{IMPOSSIBLE}{error}")
    seed = int(os.environ.get("FAULTS_SEED", random.SystemRandom().randrange(10**6)))
    print(f"FAULTS_SEED={seed}")  # noqa: T201 - to play it again
    dice = random.Random(seed)
    threads, files = set(threading.enumerate()), len(os.listdir("/dev/fd"))
    sandbox = SandboxSpec(broker=broker, beat=("heartbeat",), start_within=60)
    with World(sandbox, spec) as world:
        world.start(WORKERS, BEAT)
        possible = [name for name in FAULTS if not (broker and name.startswith("backend"))]
        light = [name for name in possible if WORKERS not in FAULTS[name].needs and name not in HEAVY]
        medium = [name for name in possible if name not in light and name not in HEAVY]
        heavy = [name for name in possible if name in HEAVY]
        before = lasting(world)
        processes = len(Remains.of(world.sandbox).processes)
        for number in range(sequences):
            names = [dice.choice(light) for _ in range(dice.randrange(1, 5))]
            if dice.random() < 0.2:
                names.insert(dice.randrange(len(names) + 1), dice.choice(medium))
            if number % 20 == 19:  # each in its turn
                names.insert(dice.randrange(len(names) + 1), heavy[number // 20 % len(heavy)])
            play(world, dice, names)
            assert world.notes == [], names
            assert not world._held
            assert all(each.name.endswith(" proxy") for each in set(threading.enumerate()) - threads)
        with suppress(AssertionError):
            wait_until(lambda: lasting(world) <= before)
        assert lasting(world) <= before
        assert len(Remains.of(world.sandbox).processes) <= processes
        wait_until(lambda: not any(proxy.open for proxy in world._proxies.values()))
        remains = Remains.of(world.sandbox)
    assert remains.alive() == []
    assert set(threading.enumerate()) <= threads
    assert len(os.listdir("/dev/fd")) <= files


def lasting(world: World) -> set[str]:
    """What there is in the broker, less what comes and goes with every heartbeat, question and event."""
    if not direct(world).startswith("redis"):
        return rabbit_queues(world)
    passing = ("unacked", "_kombu.binding_deadlines", "celery")
    return {key for key in keys(world) if key not in passing and "reply" not in key}


def rabbit_queues(world: World) -> set[str]:
    """Those of the names that faults and their workers could leave."""
    found = set()
    names = ["celery_health.w1", "celery_health.other", "celery", "payments", "w1@sandbox.celery.pidbox"]
    with Connection(direct(world)) as connection:
        for name in names:
            with suppress(*connection.channel_errors), connection.channel() as channel:
                channel.queue_declare(name, passive=True)
                found.add(name)
    return found
