"""Faults of the way to a server: met by a raw socket, redis-cli, and three styles of code under test."""

from __future__ import annotations

import gc
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress

import amqp  # type: ignore[import-untyped,unused-ignore]
import pytest
import redis
from celery import Celery
from kombu import Connection, Queue
from kombu.exceptions import OperationalError

from pytest_celery_health.sandbox.faults.here import CeleryFaults, OverdueError
from pytest_celery_health.sandbox.world import World
from tests.faults.conftest import MakeWorld
from tests.faults.witness import direct, greeting, redis_cli

BROKERS = [
    "",
    pytest.param("redis-server", marks=pytest.mark.slow),
    pytest.param("rabbitmq-server", marks=pytest.mark.slow),
]
MET = {
    "refuses": "refused",
    "hangs": "silence",
    "hangs_after": "answers",  # one byte
    "slow": "silence",
    "resets": "reset",
    "closes": "closed",
}
#: Three of them, and the others for who has time.
THREE = [
    name if name in ("refuses", "hangs", "closes") else pytest.param(name, marks=pytest.mark.slow)
    for name in MET
]


def own_connection(app: Celery) -> None:
    """Code with a connection of its own, bounded."""
    options = app.conf.broker_transport_options
    with Connection(app.conf.broker_url, transport_options=options, connect_timeout=0.3) as connection:
        declare(connection)


def from_pool(app: Celery) -> None:
    """Code that uses the app's pool."""
    with app.pool.acquire(block=True) as connection:
        declare(connection)


def declare(connection: Connection) -> None:
    queue = Queue("looked-for")(connection.default_channel)
    queue.declare()
    queue.delete()


def by_url(app: Celery) -> None:
    """Code with another client, that knows an URL from the environment."""
    url = os.environ["CACHE_URL"]
    if url.startswith("redis"):
        with redis.Redis.from_url(url, socket_timeout=0.3, retry=None) as client:
            client.ping()
        return
    place = Connection(url)
    with amqp.Connection(
        f"{place.hostname}:{place.port}",
        userid=place.userid,
        password=place.password,
        connect_timeout=0.3,
        read_timeout=0.3,
        write_timeout=0.3,
    ) as connection:
        connection.channel()


LOST = (OperationalError, redis.RedisError, amqp.AMQPError, OSError)
STYLES = [own_connection, from_pool, by_url]


@pytest.fixture
def world(world_of: MakeWorld, request: pytest.FixtureRequest) -> World:
    return world_of(getattr(request, "param", ""))


@pytest.mark.parametrize(
    "world", [*BROKERS, pytest.param("fakeredis", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize("name", MET)
def test_what_a_raw_socket_meets(name: str, world: World) -> None:
    words = b"PING\r\n" if direct(world).startswith("redis") else b"AMQP\x00\x00\x09\x01"
    assert greeting(world.url, words) == "answers"
    with world.hold(f"broker_{name}"):
        assert greeting(world.url, words) == MET[name]
        assert greeting(direct(world), words) == "answers"
    assert greeting(world.url, words) == "answers"


@pytest.fixture
def collected() -> Iterator[None]:
    """Older clients leave the socket of a login that failed to the garbage collector, which warns of it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("world", BROKERS, indirect=True)
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", [*THREE, "wrong_password"])
def test_every_style_of_code_sees_it_and_sees_it_gone(
    name: str, style: Callable[[Celery], None], faults: CeleryFaults
) -> None:
    app = faults.app
    style(app)
    with faults(f"broker_{name}"), pytest.raises(LOST):
        style(app)
    for _ in range(2):  # what the app's pool has lost, or half read, is seen by the next who uses it
        with suppress(LOST):
            style(app)
    style(app)


@pytest.mark.parametrize("name", THREE)
def test_the_result_backend_has_faults_of_its_own(name: str, faults: CeleryFaults) -> None:
    app, world = faults.app, faults.world
    app.conf.redis_socket_timeout = app.conf.redis_socket_connect_timeout = 0.3
    app.conf.result_backend_always_retry = False
    app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 0}}
    app.backend.client.connection_pool.connection_kwargs["retry"] = None
    assert app.AsyncResult("nobody").state == "PENDING"
    with faults(f"backend_{name}"):
        assert greeting(world.result, b"PING\r\n") == MET[name]
        assert greeting(world.url, b"PING\r\n") == "answers"
        with pytest.raises(redis.RedisError):
            app.backend.client.get("nobody")
        from_pool(app)
    assert app.AsyncResult("nobody").state == "PENDING"


def test_redis_cli_meets_a_wrong_password(world: World) -> None:
    assert redis_cli(world.url, "PING") == "PONG"
    with world.hold("broker_wrong_password"):
        assert redis_cli(world.url, "PING").startswith(("AUTH failed: WRONGPASS", "WRONGPASS", "NOAUTH"))
        assert redis_cli(direct(world), "PING") == "PONG"
        assert redis_cli(world.result, "PING") == "PONG"
    with world.hold("backend_wrong_password"):
        assert "WRONGPASS" in redis_cli(world.result, "PING")
    assert redis_cli(world.url, "PING") == "PONG"


def test_a_slow_broker_answers_so_much_later(world: World) -> None:
    with redis.Redis.from_url(world.url) as client:
        client.ping()
        with world.hold("broker_slow", latency=0.2):
            began = time.perf_counter()
            client.ping()
            assert time.perf_counter() - began >= 0.2
        with world.hold("broker_slow", 0.0, bandwidth=1000):
            began = time.perf_counter()
            client.echo("x" * 200)
            assert time.perf_counter() - began >= 0.2


def test_it_hangs_in_the_middle_of_a_reply(faults: CeleryFaults) -> None:
    with redis.Redis.from_url(faults.url, socket_timeout=0.2, retry=None) as client:
        client.ping()
        with faults.broker_hangs_after(4), pytest.raises(redis.TimeoutError):
            client.ping()  # "+PON"


@pytest.mark.parametrize("world", BROKERS, indirect=True)
@pytest.mark.usefixtures("collected")
def test_code_without_a_bound_fails_the_test_at_the_deadline_and_comes_back(faults: CeleryFaults) -> None:
    url = faults.url
    began = time.perf_counter()
    with pytest.raises(OverdueError) as failed, faults.broker_hangs(within=0.3):
        waits_for_ever(url)
    assert time.perf_counter() - began < 8
    begin = r"^the code under test did not come back within 0\.3 s of broker_hangs: it hung at "
    where = r"tests/faults/test_ways\.py:\d+ \(waits_for_ever\), in (redis|amqp)/\S+:\d+ \(\w+\); "
    end = "then the fault was ended, and its connections were reset, upon which it (raised .+|came back)$"
    assert re.match(begin + where + end, str(failed.value))
    own_connection(faults.app)


def waits_for_ever(url: str) -> None:
    if url.startswith("redis"):
        redis.Redis.from_url(url, socket_timeout=None, retry=None).ping()
    else:
        amqp.Connection(Connection(url).host, connect_timeout=None).connect()


def test_code_that_comes_back_too_late_with_a_verdict_has_failed_too(faults: CeleryFaults) -> None:
    def late() -> None:
        with suppress(redis.ConnectionError):
            waits_for_ever(faults.url)

    with (
        pytest.raises(OverdueError, match=r"did not come back within 0\.1 s"),
        faults.broker_hangs(within=0.1),
    ):
        late()


def test_code_in_time_has_its_own_failures(faults: CeleryFaults) -> None:
    with pytest.raises(ZeroDivisionError), faults.broker_hangs():
        _ = 1 / 0
    assert greeting(faults.url, b"PING\r\n") == "answers"
