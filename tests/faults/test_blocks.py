"""A broker whose memory is full, as redis-cli and a plain AMQP client meet it."""

from __future__ import annotations

from urllib.parse import urlsplit

import amqp  # type: ignore[import-untyped,unused-ignore]
import pytest

from pytest_celery_health.sandbox.faults import FaultError
from pytest_celery_health.sandbox.world import World
from tests.faults.conftest import MakeWorld
from tests.faults.witness import direct, keys, redis_cli


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
