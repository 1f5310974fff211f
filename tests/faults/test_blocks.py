"""A broker whose memory is full, as redis-cli and a plain AMQP client meet it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import amqp  # type: ignore[import-untyped,unused-ignore]
import pytest
from celery import Celery

from pytest_celery_health.sandbox.faults import FaultError
from pytest_celery_health.sandbox.faults.base import WORKERS
from pytest_celery_health.sandbox.world import World
from tests.faults.conftest import MakeWorld
from tests.faults.witness import direct, keys, redis_cli, workers
from tests.support.timing import wait_until


@pytest.mark.parametrize("broker", ["", pytest.param("redis-server", marks=pytest.mark.slow)])
def test_redis_refuses_what_writes_and_nothing_else(world_of: MakeWorld, broker: str) -> None:
    world = world_of(broker)
    before = keys(world)
    for _ in range(2):
        with world.hold("broker_blocks"):
            assert redis_cli(direct(world), "LPUSH", "orders", "1").startswith("OOM command not allowed")
            assert redis_cli(direct(world), "LLEN", "orders") == "0"
        assert redis_cli(direct(world), "LPUSH", "orders", "1") == "1"
        redis_cli(direct(world), "DEL", "orders")
    assert redis_cli(direct(world), "CONFIG", "GET", "maxmemory").split() == ["maxmemory", "0"]
    assert keys(world) - before <= {"celery-health.nobody"}  # for a second


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["", "rabbitmq-server"])
def test_workers_start_beside_it_and_it_is_full_all_the_same(world_of: MakeWorld, broker: str) -> None:
    world = world_of(broker)
    with world.hold("broker_blocks"):
        world.start(WORKERS)
        assert is_full(world)
        before = workers(world)[0].pid
        with world.hold("no_workers"):
            assert workers(world) == []
            assert is_full(world)
        assert workers(world)[0].pid != before
        assert is_full(world)
    assert not is_full(world)
    assert ping(world) == ["w1@sandbox"]
    assert world.notes == []


@pytest.mark.slow
def test_a_worker_that_was_asked_meanwhile_ends_and_is_there_again_for_the_next_fault(
    world_of: MakeWorld,
) -> None:
    world = world_of()
    world.start(WORKERS)
    for fault in ("not_consuming", ""):
        (main, *_), before = workers(world), keys(world)
        main.suspend()
        with ThreadPoolExecutor() as threads:
            asking = threads.submit(ping, world, 2)
            wait_until(lambda before=before: any("reply" in key for key in keys(world) - before))  # type: ignore[misc]
            with world.hold("broker_blocks"):
                main.resume()
                wait_until(lambda main=main: not main.is_running() or main.status() == "zombie")  # type: ignore[misc]
                assert "OutOfMemoryError" in world.sandbox.log("w1", 100)
                if fault:
                    with world.hold(fault):
                        assert workers(world)[0].pid != main.pid
                        assert is_full(world)
            assert asking.result() == []
        assert ping(world) == ["w1@sandbox"]
        assert world.notes == []


def is_full(world: World) -> bool:
    if world.url.startswith("redis"):
        return redis_cli(direct(world), "SETEX", "orders", "1", "1").startswith("OOM command not allowed")
    told: list[str] = []
    connection = connected(world, told)
    connection.connect()
    connection.channel().basic_publish(amqp.Message("1"), routing_key="orders")
    with suppress(TimeoutError):
        connection.drain_events(timeout=1)
    connection.collect()
    return bool(told)


def ping(world: World, within: float = 5.0) -> list[str]:
    """Who answers a client that goes straight to the broker."""
    with (
        Celery(broker=direct(world), set_as_current=False) as client,
        client.connection_for_write() as connection,
    ):
        found = client.control.broadcast("ping", reply=True, limit=1, timeout=within, connection=connection)
        return sorted(node for each in found for node in each)


def test_a_broker_without_a_limit_says_so(world_of: MakeWorld) -> None:
    world = world_of("fakeredis")
    with pytest.raises(FaultError, match=r"broker_blocks: fakeredis .* knows no limit of its memory"):
        world.enter("broker_blocks")
    with world.hold("broker_refuses"):  # it can be held beside nothing, and nothing is
        pass


@pytest.mark.slow
def test_rabbitmq_reads_no_more_of_who_publishes(world_of: MakeWorld) -> None:
    world = world_of("rabbitmq-server")
    told: list[str] = []
    with world.hold("broker_blocks"), connected(world, told) as connection:
        channel = connection.channel()
        channel.queue_declare("orders")
        channel.basic_publish(amqp.Message("1"), routing_key="orders")
        connection.drain_events(timeout=10)
        assert told == ["connection blocked, see broker logs"]
        connection.collect()
    with connected(world, told) as connection:
        channel = connection.channel()
        channel.confirm_select()
        channel.basic_publish_confirm(amqp.Message("1"), routing_key="orders")
        channel.queue_delete("orders")
    assert len(told) == 1


def connected(world: World, told: list[str]) -> amqp.Connection:
    place = urlsplit(direct(world))
    return amqp.Connection(
        f"{place.hostname}:{place.port}", place.username, place.password, on_blocked=told.append
    )
