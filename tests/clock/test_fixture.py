"""The fixture in a project's run: it ends, it is cheap, and the look keeps to real time."""

from __future__ import annotations

import pytest

from tests.observe.fleet import Server
from tests.plugin.conftest import PLUGIN
from tests.record.conftest import Project


def test_time_goes_on_after_the_test_whatever_it_did(project: Project) -> None:
    project.run(
        """
        import time, pytest
        REAL = time.time

        @pytest.fixture(autouse=True)
        def around():
            assert time.time is REAL
            yield
            assert time.time is REAL

        def test_frozen(around, celery_clock):
            celery_clock.freeze("2026-01-15T12:00:00Z")
            assert time.time() == 1768478400

        @pytest.mark.xfail(strict=True)
        def test_raises(around, celery_clock):
            celery_clock.freeze("2026-01-15T12:00:00Z")
            raise OSError

        def test_real():
            assert time.time is REAL
        """
    ).assert_outcomes(passed=2, xfailed=1)


def test_without_freezegun_the_remedy_is_named(project: Project) -> None:
    project.pytester.makeconftest("import sys; sys.modules['freezegun'] = None")
    result = project.run("def test_frozen(celery_clock): pass\n")
    result.assert_outcomes(errors=1)
    line = "celery_clock needs freezegun: pip install 'pytest-celery-health[clock]'"
    assert f"E   Failed: {line}" in result.stdout.str() or f"\n{line}" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


@pytest.mark.slow
def test_who_does_not_ask_pays_nothing(project: Project) -> None:
    project.run(
        "import sys\n"
        "def test_plain():\n"
        "    assert {'freezegun', 'celery', 'dateutil'}.isdisjoint(sys.modules)\n"
    ).assert_outcomes(passed=1)


LOOK = """
from datetime import datetime, timezone

import pytest
import redis
from pytest_celery_health import Beat, BeatFresh, Snapshot, judge

@pytest.mark.celery_health(BeatFresh(heartbeat="redis:real"))
def test_look(celery_health, celery_clock):
    client = redis.Redis.from_url({url!r})
    fresh = BeatFresh(heartbeat="redis:frozen", within="2min")
    celery_clock.freeze("2026-01-15T12:00:00Z")
    client.set("frozen", datetime.now(timezone.utc).isoformat())
    celery_health.expect(BeatFresh(heartbeat="redis:real", within="2min"))  # real, as the system looked at
    with pytest.raises(AssertionError, match="wanted .*2 min"):
        celery_health.expect(fresh)
    seen = celery_health.look(fresh)
    assert abs(seen.now.timestamp() - {now!r}) < 600
    written = seen.beat("redis:frozen").last_seen
    assert judge(BeatFresh(), Snapshot(Beat(written))).healthy  # of a test's own making: frozen
    celery_clock.shift("121s")
    assert not judge(BeatFresh(), Snapshot(Beat(written))).healthy
"""


def test_a_look_inside_frozen_time_is_judged_by_real_time(
    project: Project, redis_url: str, redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.set("real", time.time())
    monkeypatch.setenv("STAGING_BROKER", redis_url)
    project.pytester.makepyprojecttoml(
        "[tool.celery-health.target.staging]\nbroker = 'env:STAGING_BROKER'\nexpect_host = '127.0.0.1'\n"
    )
    project.pytester.makepyfile(test_it=LOOK.format(url=redis_url, now=time.time()))
    result = project.pytester.runpytest_subprocess(
        *PLUGIN, "--celery-health", "--celery-health-target=staging", "-W", "error", timeout=60
    )
    result.assert_outcomes(passed=1)


ASYNC = """
import asyncio, time, pytest

{mark}
async def test_frozen(celery_clock):
    celery_clock.freeze("2026-01-15T12:00:00Z")
    await asyncio.wait_for(asyncio.sleep(0.01), 5)
    assert time.time() == 1768478400
    assert await asyncio.to_thread(lambda: time.time()) == 1768478400

def test_after():
    assert abs(time.time() - time.clock_gettime(time.CLOCK_REALTIME)) < 60
"""


@pytest.mark.neighbours
def test_beside_pytest_asyncio(project: Project) -> None:
    result = project.run(
        ASYNC.format(mark="@pytest.mark.asyncio"),
        *("-p", "pytest_asyncio.plugin"),
        *("-W", "ignore::DeprecationWarning", "-o", "asyncio_default_fixture_loop_scope=function"),
    )
    result.assert_outcomes(passed=2)
