"""Who does not see frozen time, whatever calls it: transports, Celery, deadlines, what is installed."""

from __future__ import annotations

import asyncio
import importlib
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone

import pytest
import redis
from celery import Celery

from pytest_celery_health.clock import CeleryClock
from pytest_celery_health.observe.clock import Deadline, epoch
from tests.clock.conftest import NOON

CLIENT = """
import time
import datetime
from datetime import datetime as bound
from time import time as bound_time

def seen():
    return {time.time(), bound_time(), datetime.datetime.now().timestamp(), bound.now().timestamp()}
"""


def is_real(seconds: float) -> bool:
    return abs(seconds - epoch()) < 60


def test_nobodys_monotonic_clock_stands_still(celery_clock: CeleryClock) -> None:
    before = time.monotonic(), time.perf_counter(), time.monotonic_ns(), time.perf_counter_ns()
    celery_clock.freeze(NOON)
    time.sleep(0.001)
    after = time.monotonic(), time.perf_counter(), time.monotonic_ns(), time.perf_counter_ns()
    assert all(late - early > 0 for early, late in zip(before, after, strict=True))
    assert after[0] - before[0] < 60


def test_a_deadline_of_ours_passes(celery_clock: CeleryClock) -> None:
    celery_clock.freeze(NOON)
    deadline = Deadline(0.01)
    assert not deadline.passed
    threading.Event().wait(0.02)
    assert deadline.passed


def test_celery_sees_real_time(celery_clock: CeleryClock, app: Celery) -> None:
    celery_clock.freeze(NOON)
    assert datetime.now(timezone.utc) == NOON
    assert is_real(app.now().timestamp())


def test_what_is_installed_sees_real_time_unless_it_is_named(
    celery_clock: CeleryClock, installed: Callable[..., None]
) -> None:
    installed("acme_client", CLIENT)
    acme = importlib.import_module("acme_client")
    celery_clock.freeze(NOON)
    assert all(map(is_real, acme.seen()))
    with celery_clock.freeze(NOON, also="acme_client"):
        assert acme.seen() == {NOON.timestamp()}
    assert all(map(is_real, acme.seen()))


def test_what_is_first_imported_while_time_is_frozen_is_left_as_python_made_it(
    celery_clock: CeleryClock, installed: Callable[..., None]
) -> None:
    installed("acme_late", CLIENT)
    installed("shop_late", CLIENT, origin="file:///src/shop_late")
    with celery_clock.freeze(NOON):
        acme, shop = importlib.import_module("acme_late"), importlib.import_module("shop_late")
        assert all(map(is_real, acme.seen()))
    for module in (acme, shop):
        assert (module.bound, module.bound_time) == (datetime, time.time)
        assert type(module.bound_time).__name__ == "builtin_function_or_method"


def test_the_project_itself_may_be_installed(
    celery_clock: CeleryClock, installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tox does it, from a folder or a file."""
    from pytest_celery_health.clock import who

    installed("shop_installed", CLIENT, origin="file:///src/shop")
    installed("acme_git", CLIENT, origin="https://git.example/acme")
    who._installed_from_here.cache_clear()
    shop, acme = importlib.import_module("shop_installed"), importlib.import_module("acme_git")
    celery_clock.freeze(NOON)
    assert shop.seen() == {NOON.timestamp()}
    assert all(map(is_real, acme.seen()))
    who._installed_from_here.cache_clear()


def test_redis_goes_on_and_its_ttls_are_the_servers(celery_clock: CeleryClock, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, socket_timeout=5) as client:
        celery_clock.freeze(NOON)
        client.set("heartbeat", datetime.now(timezone.utc).isoformat(), ex=120)
        celery_clock.shift("1d")
        assert client.get("heartbeat") == b"2026-01-15T12:00:00+00:00"
        assert 100 < client.ttl("heartbeat") <= 120
        assert client.blpop(["nothing"], timeout=0.05) is None  # type: ignore[arg-type]


def test_a_hung_server_is_given_up_in_time(celery_clock: CeleryClock) -> None:
    celery_clock.freeze(NOON)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with (
            redis.Redis(port=port, socket_timeout=0.1, retry=None) as client,
            pytest.raises(redis.TimeoutError),
        ):
            client.ping()


def test_a_ping_that_nobody_answers_ends_at_its_timeout(celery_clock: CeleryClock, redis_url: str) -> None:
    """Within a freeze of freezegun alone it would not: the clock of kombu's timeout stands still."""
    app = Celery("asking", broker=redis_url, set_as_current=False)
    celery_clock.freeze(NOON)
    assert app.control.ping(timeout=0.2) == []
    app.close()


def test_asyncio_sleeps_and_its_code_sees_frozen_time(celery_clock: CeleryClock) -> None:
    celery_clock.freeze(NOON)

    async def sleep() -> float:
        await asyncio.wait_for(asyncio.sleep(0.01), 5)
        return await asyncio.to_thread(time.time)

    async def own() -> float:
        return time.time()

    async def both() -> list[float]:
        return [await own(), await asyncio.to_thread(lambda: time.time())]

    assert is_real(asyncio.run(sleep()))  # asked by asyncio itself: no frame of the project calls it
    assert asyncio.run(both()) == [NOON.timestamp()] * 2
