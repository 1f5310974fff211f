"""Faults of real workers, seen by the kernel, redis-cli and what becomes of tasks; and seen to be gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from pytest_celery_health.sandbox.faults import FaultError
from pytest_celery_health.sandbox.faults.base import WORKERS
from pytest_celery_health.sandbox.world import World
from tests.faults.conftest import MakeWorld
from tests.faults.witness import direct, keys, mailboxes, redis_cli, stopped, workers
from tests.support.timing import wait_until

#: Seconds in which a task that nobody runs is not run.
SILENCE = 0.3
slow = pytest.mark.slow


@pytest.fixture
def world(world_of: MakeWorld, request: pytest.FixtureRequest) -> World:
    """A world with one prefork worker of two processes, or what the test asks for."""
    world = world_of(**getattr(request, "param", {}))
    world.start(WORKERS)
    return world


@pytest.fixture
def client(world: World) -> Iterator[Celery]:
    """Code under test, straight at the broker."""
    with Celery(broker=direct(world), set_as_current=False) as client:
        client.conf.broker_transport_options = dict(world.options)
        yield client


@pytest.fixture
def sent(client: Celery, scratch: Path) -> Callable[..., Callable[[], bool]]:
    """Send a task; what comes back says whether it was run."""

    def send(queue: str = "celery") -> Callable[[], bool]:
        name = uuid4().hex
        client.send_task("tiny.touch", [name], queue=queue, ignore_result=True)
        return (scratch / name).exists

    return send


def ping(client: Celery, name: str = "w1") -> bool:
    with client.connection_for_write() as connection:  # of its own: in a pool an old request may be under way
        return bool(
            client.control.broadcast(
                "ping", destination=[f"{name}@sandbox"], reply=True, limit=1, timeout=1, connection=connection
            )
        )


def asked(client: Celery, command: str, name: str = "w1") -> Any:
    with client.connection_for_write() as connection:
        node = f"{name}@sandbox"
        replies = client.control.broadcast(
            command, destination=[node], reply=True, limit=1, timeout=5, connection=connection
        )
        return replies[0][node]


@contextmanager
def whole_again(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> Iterator[None]:
    """At the end the world is as it was: a worker of this name, its pool, its queues, the broker's keys."""
    before = keys(world)
    yield
    assert ping(client)
    assert sorted(queue["name"] for queue in asked(client, "active_queues")) == ["celery", "payments"]
    assert not asked(client, "active")
    wait_until(sent())
    wait_until(sent("payments"))
    main, *children = workers(world)
    assert len([each for each in children if "w1.json" in " ".join(each.cmdline())]) >= 2
    assert not any(stopped([each]) for each in (main, *children))
    wait_until(lambda: {key for key in keys(world) - before if "pidbox" not in key} == set())
    assert world.notes == []


def stays_undone(done: Callable[[], bool]) -> bool:
    time.sleep(SILENCE)
    return not done()


def test_not_consuming(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> None:
    with whole_again(world, client, sent):
        with world.hold("not_consuming"):
            assert ping(client)
            assert asked(client, "active_queues") == []
            done = sent()
            assert stays_undone(done)
            assert redis_cli(direct(world), "LLEN", "celery") == "1"
        wait_until(done)


@slow
@pytest.mark.parametrize("world", [{"workers": 2}], indirect=True)
def test_the_end_of_one_fault_leaves_the_worker_of_another_as_it_is(world: World) -> None:
    with world.hold("worker_killed", worker="w2"):
        for fault in ("worker_killed", "worker_frozen", "broker_blocks"):
            with world.hold(fault, **({} if fault == "broker_blocks" else {"worker": "w1"})):
                pass
            assert workers(world, "w1")
            assert workers(world, "w2") == []
    assert workers(world, "w2")
    assert mailboxes(world) == 2
    assert world.notes == []


@slow
def test_other_queue(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> None:
    with whole_again(world, client, sent):
        with world.hold("other_queue", queue="elsewhere"):
            assert ping(client)
            assert [queue["name"] for queue in asked(client, "active_queues")] == ["elsewhere"]
            done, other = sent(), sent("elsewhere")
            wait_until(other)
            assert stays_undone(done)
        wait_until(done)
    with pytest.raises(FaultError, match=r"^other_queue: w1 consumes celery already; name another queue$"):
        world.enter("other_queue", queue="celery")


@slow
def test_no_workers(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> None:
    with whole_again(world, client, sent):
        before = workers(world)
        with world.hold("no_workers"):
            assert not any(process.is_running() for process in before)
            assert mailboxes(world) == 0
            assert "worker: Warm shutdown (MainProcess)" in world.sandbox.log("w1", 100)
            done = sent()
            assert stays_undone(done)
        wait_until(done)
        assert mailboxes(world) == 1
        assert workers(world)[0].pid != before[0].pid


@slow
def test_worker_killed(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> None:
    with whole_again(world, client, sent):
        before = workers(world)
        with world.hold("worker_killed"):
            assert not before[0].is_running()
            assert world.sandbox.exit_code("w1") == -9
            assert mailboxes(world) == 0
        assert workers(world)[0].pid != before[0].pid
        assert not any(process.is_running() for process in before)


@slow
def test_what_a_killed_worker_had_taken_is_run_by_the_next(
    world: World, client: Celery, sent: Callable[..., Callable[[], bool]]
) -> None:
    with whole_again(world, client, sent):
        with world.hold("pool_saturated"):
            taken = [sent(), sent()]
            wait_until(lambda: redis_cli(direct(world), "ZCARD", "unacked_index") == "2")
            workers(world)[0].kill()
            wait_until(lambda: workers(world) == [])
        wait_until(lambda: all(done() for done in taken))


@slow
def test_worker_frozen(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> None:
    with whole_again(world, client, sent):
        before = workers(world)
        assert len(before) >= 3
        with world.hold("worker_frozen"):
            assert stopped(before)
            assert mailboxes(world) == 1  # Redis has it still
            assert not ping(client)
            done = sent()
            assert stays_undone(done)
        wait_until(done)
        assert workers(world)[0].pid == before[0].pid


@slow
def test_warm_shutdown(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> None:
    with whole_again(world, client, sent):
        main = workers(world)[0]
        with world.hold("warm_shutdown"):
            assert main.is_running()
            assert not stopped([main])
            assert not ping(client)
            done = sent()
            assert stays_undone(done)
        assert not main.is_running()
        wait_until(done)


@slow
def test_worker_busy_solo(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> None:
    with whole_again(world, client, sent):
        before = workers(world)
        with world.hold("worker_busy_solo"):
            (main,) = workers(world)
            assert main.pid != before[0].pid
            assert not stopped([main])
            assert mailboxes(world) == 1
            assert not ping(client)
            done = sent()
            assert stays_undone(done)
        wait_until(done)


@slow
def test_pool_saturated(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> None:
    with whole_again(world, client, sent):
        with world.hold("pool_saturated"):
            assert ping(client)
            assert [task["name"] for task in asked(client, "active")] == 2 * ["celery_health.busy"]
            assert sorted(queue["name"] for queue in asked(client, "active_queues")) == ["celery", "payments"]
            done = sent()
            assert stays_undone(done)
        wait_until(done)


@slow
def test_pool_child_frozen(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> None:
    with whole_again(world, client, sent):
        main, *_ = before = workers(world)
        pool = [each for each in before if each.pid in asked(client, "stats")["pool"]["processes"]]
        assert len(pool) == 2
        with world.hold("pool_child_frozen"):
            assert stopped(pool)
            assert not stopped([main])
            assert ping(client)
            done = sent()
            assert stays_undone(done)
        wait_until(done)


@slow
def test_pool_child_killed(world: World, client: Celery, sent: Callable[..., Callable[[], bool]]) -> None:
    with whole_again(world, client, sent):
        before = set(asked(client, "stats")["pool"]["processes"])
        with world.hold("pool_child_killed"):
            assert not [each for each in workers(world) if each.pid in before]
            assert ping(client)
        assert not before & set(asked(client, "stats")["pool"]["processes"])
        assert "WorkerLostError" in world.sandbox.log("w1", 200)


@slow
@pytest.mark.parametrize("seconds", [600.0, -600.0])
def test_clock_skewed(
    seconds: float, world: World, client: Celery, sent: Callable[..., Callable[[], bool]]
) -> None:
    with whole_again(world, client, sent):
        with world.hold("clock_skewed", seconds), world.hold("pool_saturated"):
            for task in asked(client, "active"):
                assert task["time_start"] == pytest.approx(time.time() + seconds, abs=30)
            assert heartbeat(client) == pytest.approx(time.time() + seconds, abs=30)
        with world.hold("pool_saturated"):
            for task in asked(client, "active"):
                assert task["time_start"] == pytest.approx(time.time(), abs=30)
        assert heartbeat(client) == pytest.approx(time.time(), abs=30)


def heartbeat(client: Celery) -> float:
    """The timestamp of the next heartbeat event."""
    seen: list[float] = []

    def note(event: dict[str, Any]) -> None:
        seen.append(event["timestamp"])

    with client.connection_for_read() as connection:
        receiver = client.events.Receiver(connection, handlers={"worker-heartbeat": note})
        with receiver.consumer_context() as (receiving, _, _):
            client.control.broadcast("heartbeat")
            while not seen:
                receiving.drain_events(timeout=10)
    return seen[0]


@slow
@pytest.mark.parametrize("world", [{"workers": 2}], indirect=True)
def test_one_of_two_workers_may_be_named(world: World, client: Celery) -> None:
    with world.hold("worker_frozen", worker="w2"), world.hold("not_consuming", worker="w1"):
        assert stopped(workers(world, "w2"))
        assert not stopped(workers(world, "w1"))
        assert ping(client, "w1")
        assert asked(client, "active_queues") == []
        with pytest.raises(FaultError, match=r"^not_consuming cannot be held beside worker_frozen"):
            world.enter("not_consuming")
    with world.hold("no_workers"):
        assert mailboxes(world) == 0
    assert ping(client, "w1")
    assert ping(client, "w2")
    with pytest.raises(FaultError, match=r"^worker_frozen: no worker 'w3'; there are w1, w2$"):
        world.enter("worker_frozen", worker="w3")


@slow
@pytest.mark.parametrize(
    "world",
    [
        {"broker": "rabbitmq-server"},
        {"broker": "fakeredis"},
        {"broker": "redis-server", "pool": "threads"},
        {"pool": "solo"},
    ],
    indirect=True,
    ids=lambda more: " ".join(more.values()),
)
def test_on_other_brokers_and_pools(world: World, client: Celery, scratch: Path) -> None:
    """Each fault is there and gone again, as far as its worker can be asked."""
    solo = world.spec.pool == "solo"

    def is_run() -> bool:
        name = uuid4().hex
        client.send_task("tiny.touch", [name], ignore_result=True)
        wait_until((scratch / name).exists)
        return True

    for name in ("no_workers", "worker_killed", "worker_frozen", "warm_shutdown", "worker_busy_solo"):
        with world.hold(name):
            assert not ping(client), name
        assert is_run(), name
    for name, queues in (("not_consuming", []), ("other_queue", ["celery_health.other"])):
        with world.hold(name):
            assert [queue["name"] for queue in asked(client, "active_queues")] == queues
        assert is_run(), name
    if solo:
        with pytest.raises(
            FaultError, match=r"^pool_saturated: w1 has the pool solo; hold worker_busy_solo$"
        ):
            world.enter("pool_saturated")
    else:
        with world.hold("pool_saturated"):
            assert len(asked(client, "active")) == 2
        assert is_run()
    if solo or world.spec.pool == "threads":
        with pytest.raises(FaultError, match=r"^pool_child_killed: the pool .* needs prefork$"):
            world.enter("pool_child_killed")
    with world.hold("clock_skewed"):
        assert heartbeat(client) == pytest.approx(time.time() + 600, abs=30)
    with world.hold("broker_restarts_empty"):
        pass
    assert is_run()
    assert world.notes == []
