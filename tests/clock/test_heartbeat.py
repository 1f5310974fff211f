"""How fresh a heartbeat in a real Redis is, without sleeping: the guide's check is red, the shop's green."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
import redis

from pytest_celery_health.clock import CeleryClock
from tests.observe.fleet import Server
from tests.record.conftest import GUIDE, REPO, SHOP, Project

TEST = '''
import pytest
from shop import health, tasks

AGES = {"119s": True, "121s": False, "1d": False, "1d 10s": False, "-1s": True, "-1h": False}

@pytest.mark.parametrize("begins", ["2026-01-15T12:00:00Z", "2026-03-29T00:59:30Z", "2026-10-25T00:59:30Z"])
@pytest.mark.parametrize("age", AGES)
def test_heartbeat(celery_clock, celery_signals, begins, age):
    """Clocks in Berlin change thirty seconds after the last two begin."""
    celery_clock.freeze(begins)
    celery_signals.run(tasks.heartbeat.s())
    celery_clock.shift(age)
    verdict = health.check_beat_health()
    assert verdict["healthy"] is AGES[age], f"{age}: {verdict}"
'''


@pytest.fixture
def beside_redis(project: Project, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    return project


def told(result: pytest.RunResult) -> list[str]:
    """What the failed tests said, in one line each, without the heartbeat's own time."""
    found = re.findall(r"^E +AssertionError: (.*)$", result.stdout.str(), re.MULTILINE)
    return sorted({re.sub(r", 'last_heartbeat': '[^']*'", "", line) for line in found})


def test_the_corrected_check_is_right_at_every_age(beside_redis: Project) -> None:
    beside_redis.copy(SHOP)
    beside_redis.run(TEST).assert_outcomes(passed=18)


@pytest.mark.slow
def test_the_guides_check_wraps_after_a_day(beside_redis: Project) -> None:
    beside_redis.copy(GUIDE)
    result = beside_redis.run(TEST)
    result.assert_outcomes(passed=9, failed=9)
    assert told(result) == [
        "-1s: {'healthy': False, 'error': 'heartbeat is 86399s old'}",
        "1d 10s: {'healthy': True}",
        "1d: {'healthy': True}",
    ]


@pytest.mark.slow
def test_the_examples_of_the_page_are_green(beside_redis: Project) -> None:
    beside_redis.copy(SHOP)
    page = (REPO / "docs" / "clock.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 1
    assert beside_redis.run("\n".join(blocks)).parseoutcomes().keys() == {"passed"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [
        ("-p", "xdist.plugin", "-n", "2"),
        ("-p", "pytest_randomly"),
        ("-p", "pytest_timeout", "--timeout=30", "--timeout-method=thread"),
        ("-p", "pytest_timeout", "--timeout=30", "--timeout-method=signal"),
    ],
    ids=" ".join,
)
def test_beside_other_plugins(beside_redis: Project, redis_server: Server, args: tuple[str, ...]) -> None:
    beside_redis.copy(SHOP)
    # A database for each of xdist's processes: they write one key.
    own = {process: redis_server.fresh() for process in ("gw0", "gw1")}
    beside_redis.pytester.makeconftest(
        "import os\n"
        f"own = {own!r}.get(os.environ.get('PYTEST_XDIST_WORKER'))\n"
        "os.environ['REDIS_URL'] = own or os.environ['REDIS_URL']\n"
    )
    beside_redis.run(TEST, *args).assert_outcomes(passed=18)


GUIDES_OWN = """
import sys, pytest
from celery import Celery, shared_task
from django.conf import settings

LOCAL = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
settings.configure(USE_TZ=True, CACHES={"default": LOCAL})
app = Celery("mysite", broker="redis://nobody.invalid/0")

from django.core.cache import cache
from django.utils import timezone

@shared_task
def beat_heartbeat():
    cache.set("celery_beat_heartbeat", timezone.now().isoformat(), timeout=None)

def check_beat_health():
    heartbeat = cache.get("celery_beat_heartbeat")
    if not heartbeat:
        return {"healthy": False, "error": "No heartbeat recorded"}
    last_beat = timezone.datetime.fromisoformat(heartbeat)
    age = (timezone.now() - last_beat).seconds
    if age > 120:
        return {"healthy": False, "error": f"Heartbeat is {age}s old"}
    return {"healthy": True, "last_heartbeat": heartbeat}

@pytest.mark.parametrize(("age", "fresh"), [("119s", True), ("121s", False), ("1d", False), ("-1s", True)])
def test_heartbeat(celery_clock, celery_signals, age, fresh):
    celery_clock.freeze("2026-01-15T12:00:00Z")
    celery_signals.run(beat_heartbeat.s())
    celery_clock.shift(age)
    verdict = check_beat_health()
    assert verdict["healthy"] is fresh, f"{age}: {verdict}"

def test_a_cache_in_this_process_expires_by_frozen_time(celery_clock):
    celery_clock.freeze("2026-01-15T12:00:00Z")
    cache.set("heartbeat", "now", timeout=120)
    celery_clock.shift("119s")
    assert cache.get("heartbeat") == "now"
    celery_clock.shift("2s")
    assert cache.get("heartbeat") is None
"""


@pytest.mark.slow
def test_the_guides_own_words_in_django(project: Project) -> None:
    pytest.importorskip("django")
    result = project.run(GUIDES_OWN)
    result.assert_outcomes(passed=3, failed=2)
    assert told(result) == [
        "-1s: {'healthy': False, 'error': 'Heartbeat is 86399s old'}",
        "1d: {'healthy': True}",
    ]


def naive(client: redis.Redis) -> timedelta:
    """Local time without a zone, as many write it."""
    return datetime.now() - datetime.fromisoformat(client.get("heartbeat").decode())


def test_a_heartbeat_in_local_time_is_off_by_an_hour_when_clocks_change(
    celery_clock: CeleryClock, berlin: None, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        for begins, seen in (
            ("2026-01-15T12:00:00Z", timedelta(seconds=119)),
            ("2026-03-29T00:59:30Z", timedelta(hours=1, seconds=119)),
            ("2026-10-25T00:59:30Z", timedelta(hours=-1, seconds=119)),
        ):
            celery_clock.move_to(begins)
            client.set("heartbeat", datetime.now().isoformat())
            client.set("aware", datetime.now(ZoneInfo("Europe/Berlin")).isoformat())
            celery_clock.shift("119s")
            assert naive(client) == seen
            aware = datetime.fromisoformat(client.get("aware").decode())
            assert datetime.now(timezone.utc) - aware == timedelta(seconds=119)


def test_naive_and_aware_do_not_mix(celery_clock: CeleryClock, redis_url: str) -> None:
    celery_clock.freeze("2026-01-15T12:00:00Z")
    with redis.Redis.from_url(redis_url) as client:
        client.set("heartbeat", datetime.now(timezone.utc).isoformat())
        with pytest.raises(TypeError, match="offset-naive and offset-aware"):
            naive(client)
