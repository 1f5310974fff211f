"""A heartbeat of another age, in the form in which the project writes it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from redis import Redis

from conftest import IMPOSSIBLE
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox
from pytest_celery_health.sandbox.brokers import UnavailableError, choose
from pytest_celery_health.sandbox.faults import FaultError
from pytest_celery_health.sandbox.probes import heartbeats
from pytest_celery_health.sandbox.probes.heartbeats import Called, File, Key, aside, held, like
from pytest_celery_health.sandbox.spec import SandboxSpec
from tests.faults.witness import redis_cli

FILLING = (
    ("SET", "seen", "2026-01-15T12:00:00+00:00", "EX", "120"),
    ("RPUSH", "orders", "a", "b"),
    ("SADD", "_kombu.binding.orders", "orders"),
    ("HSET", "unacked", "tag", "message"),
    ("ZADD", "unacked_index", "12.5", "tag"),
)
LISTING = (
    ("DBSIZE",),
    ("GET", "seen"),
    ("LRANGE", "orders", "0", "-1"),
    ("TTL", "orders"),
    ("SMEMBERS", "_kombu.binding.orders"),
    ("HGETALL", "unacked"),
    ("ZRANGE", "unacked_index", "0", "-1", "WITHSCORES"),
)
AT = datetime(2026, 1, 15, 12, 0, 0, 250_000, timezone.utc)


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ("2026-11-26T21:59:34.481772+00:00", "2026-01-15T12:00:00.250000+00:00"),
        ("2026-11-26T21:59:34+00:00", "2026-01-15T12:00:00+00:00"),
        ("2026-11-26T21:59:34Z", "2026-01-15T12:00:00Z"),
        ("2026-11-26 21:59:34.481772+02:00", "2026-01-15 14:00:00.250000+02:00"),
        ('"2026-11-26T21:59:34+00:00"', '"2026-01-15T12:00:00+00:00"'),
        ("1764194374", "1768478400"),
        ("1764194374.25", "1768478400.25"),
        ("1764194374250", "1768478400250"),
    ],
)
def test_the_form_is_kept(sample: str, said: str) -> None:
    assert like(sample, AT.timestamp(), "key beat") == said


@pytest.mark.parametrize("zone", ["UTC", "XXX-5"])
def test_a_naive_time_stays_what_it_was(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for now in (datetime.now(timezone.utc).replace(tzinfo=None), datetime.now()):
            ahead = round((now - datetime.now(timezone.utc).replace(tzinfo=None)).total_seconds() / 3600)
            wanted = AT.replace(tzinfo=None) + timedelta(hours=ahead)
            assert like(now.isoformat(), AT.timestamp(), "key beat") == wanted.isoformat()
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("sample", ["yesterday", "2026-11-26", ""])
def test_a_form_that_is_not_known(sample: str) -> None:
    with pytest.raises(FaultError, match=r"key beat holds .*, so it cannot be made older"):
        like(sample, AT.timestamp(), "key beat")


@pytest.fixture
def redis() -> Iterator[Redis]:
    with Redis.from_url("redis://127.0.0.1:6379/0") as client:
        try:
            client.ping()
        except OSError:
            pytest.skip("no Redis on its usual port")
        yield client


def test_a_key_and_what_it_was_before(redis: Redis) -> None:
    name = f"celery-health-test-{os.getpid()}"
    redis.set(name, "2026-11-26T21:59:34+00:00", ex=120)
    try:
        key = Key(redis, name)
        assert key.is_there()
        with held(key, 3600.0):
            seen = datetime.fromisoformat(bytes(redis.get(name) or b"").decode())  # type: ignore[arg-type]
            assert 3599 <= (datetime.now(timezone.utc) - seen).total_seconds() <= 3660
            assert redis.ttl(name) == -1  # it does not go before it is too old
            assert key.is_ours()
            redis.set(name, "another's")
            assert not key.is_ours()
        assert 0 < int(redis.ttl(name)) <= 120  # type: ignore[arg-type]
        with held(key, None):
            assert redis.get(name) is None
            assert key.is_ours()
        with held(key, float("nan")):
            assert b"not a time" in bytes(redis.get(name) or b"")  # type: ignore[arg-type]
        datetime.fromisoformat(bytes(redis.get(name) or b"").decode())  # type: ignore[arg-type]
    finally:
        redis.delete(name)


def test_a_key_that_nobody_wrote(redis: Redis) -> None:
    with pytest.raises(FaultError, match="nobody has written the heartbeat celery-health-none"):
        Key(redis, "celery-health-none").write(60.0)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "beat"
    file = File(path)
    assert not file.is_there()
    path.write_text("beat")
    with held(file, 121.0):
        assert 120 < time.time() - path.stat().st_mtime < 180
        assert file.is_ours()
    assert time.time() - path.stat().st_mtime < 60
    with held(file, None):
        assert not path.exists()
        assert file.is_ours()
        path.write_text("another's")
        assert not file.is_ours()
    assert path.read_text() == "beat"


@pytest.mark.parametrize(
    "told",
    [
        AT,
        AT.isoformat(),
        AT.timestamp(),
    ],
)
def test_a_function_is_asked_again_at_another_time(told: object) -> None:
    clock: list[float | None] = []
    called = Called("shop:last", lambda: told, clock.append)
    assert called.is_there()
    with held(called, 121.0):
        assert called.is_ours()
    assert clock == [AT.timestamp() + 121, None]


def test_a_function_whose_heartbeat_another_wrote_anew() -> None:
    told = [AT, AT, AT + timedelta(seconds=30)]
    called = Called("shop:last", lambda: told.pop(0), lambda _: None)
    assert called.is_there()
    with held(called, 121.0):
        assert called.is_ours()
        assert not called.is_ours()


def test_a_function_that_knows_of_no_heartbeat_or_of_no_time() -> None:
    assert not Called("shop:last", lambda: None, lambda _: None).is_there()
    with pytest.raises(FaultError, match=r"shop:last\(\) returned 'soon', which is not a time, so it cannot"):
        Called("shop:last", lambda: "soon", lambda _: None).is_there()


def test_a_function_that_tells_a_time_without_zone() -> None:
    now = datetime.now()
    clock: list[float | None] = []
    called = Called("shop:last", lambda: now, clock.append)
    assert called.is_there()
    called.write(0.0)
    assert clock[0] == pytest.approx(now.timestamp(), abs=1e-3)


@pytest.mark.parametrize("broker", ["", "redis-server", "fakeredis"])
def test_what_a_redis_holds_comes_back(broker: str, tmp_path: Path) -> None:
    spec = SandboxSpec(broker=broker, workers=0, start_within=60)
    try:
        choose(broker)
    except UnavailableError as error:
        pytest.skip(f"{IMPOSSIBLE}{error}")
    with Sandbox(spec, AppSpec("", tmp_path)) as sandbox:
        url = sandbox.target.url

        def held_there() -> list[str]:
            return [redis_cli(url, *each) for each in LISTING]

        for each in FILLING:
            redis_cli(url, *each)
        before = held_there()
        assert before[0] == "5"
        with Redis.from_url(url) as client, aside(client):
            assert redis_cli(url, "DBSIZE") == "0"
        assert held_there() == before
        assert 0 < int(redis_cli(url, "TTL", "seen")) <= 120


def test_without_freezegun_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "find_spec", lambda _: None)
    called = Called("shop:last", lambda: AT, lambda _: None)
    assert called.is_there()
    with pytest.raises(FaultError, match=r"pip install 'pytest-celery-health\[clock\]'"):
        called.write(121.0)
