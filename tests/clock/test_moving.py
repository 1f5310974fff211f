"""`freeze`, `move_to`, `shift` and `now`: what they take, and how they end."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from pytest_celery_health.clock import CeleryClock
from tests.clock.conftest import NOON

MOMENTS = {
    "Z": "2026-01-15T12:00:00Z",
    "an offset": "2026-01-15T13:00:00+01:00",
    "no zone, which is UTC": "2026-01-15 12:00:00",
    "an aware datetime": datetime(2026, 1, 15, 13, tzinfo=ZoneInfo("Europe/Berlin")),
    "a naive datetime": datetime(2026, 1, 15, 12),
    "seconds since 1970": 1768478400,
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_moment_is_written_in_many_ways(celery_clock: CeleryClock, berlin: None, moment: object) -> None:
    celery_clock.freeze(moment)
    assert datetime.now(timezone.utc) == celery_clock.now == NOON


@pytest.mark.parametrize("day", ["2026-01-15", date(2026, 1, 15)])
def test_a_day_is_its_midnight(celery_clock: CeleryClock, day: object) -> None:
    celery_clock.freeze(day)
    assert celery_clock.now == NOON.replace(hour=0)


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        ("noon", "celery_clock was given 'noon', which is not a time; write '2026-01-15T12:00:00Z'"),
        ([], "celery_clock was given a list, which is not a time"),
        (True, "celery_clock was given True, which is not a time"),
        ("0001-01-01T00:00:00+14:00", "leads out of the years that Python knows"),
    ],
)
def test_what_is_no_moment_is_refused(celery_clock: CeleryClock, moment: object, why: str) -> None:
    for freeze in (celery_clock.freeze, celery_clock.move_to):
        with pytest.raises(ValueError, match=why):
            freeze(moment)
    assert time.time() != NOON.timestamp()


def test_a_module_that_is_none_is_refused(celery_clock: CeleryClock) -> None:
    with pytest.raises(ValueError, match=r"also names 'strutclog.processors', of which there is no module"):
        celery_clock.freeze(NOON, also=["celery", "strutclog.processors"])
    assert time.time() != NOON.timestamp()


@pytest.mark.parametrize(
    ("by", "seconds"),
    [
        ("121s", 121),
        ("2min", 120),
        ("1d 10s", 86410),
        ("-1s", -1),
        (121, 121),
        (-0.5, -0.5),
        (timedelta(days=-1), -86400),
        (0, 0),
    ],
)
def test_time_is_shifted_to_and_fro(celery_clock: CeleryClock, by: object, seconds: float) -> None:
    celery_clock.freeze(NOON)
    celery_clock.shift(by)
    assert datetime.now(timezone.utc) - NOON == timedelta(seconds=seconds)
    assert time.time() - NOON.timestamp() == seconds


@pytest.mark.parametrize("by", ["soon", "--1s", True, float("nan"), "10000000d", timedelta(days=4 * 10**6)])
def test_what_is_no_duration_is_refused_and_moves_nothing(celery_clock: CeleryClock, by: object) -> None:
    celery_clock.freeze(NOON)
    with pytest.raises(ValueError, match=r"is not a duration|out of the years"):
        celery_clock.shift(by)
    assert celery_clock.now == NOON


def test_without_a_moment_it_is_this_one(celery_clock: CeleryClock) -> None:
    before = time.time()
    celery_clock.freeze()
    assert before <= time.time() == time.time() <= before + 60


def test_to_move_freezes_where_nothing_is_frozen_and_to_shift_says_how(celery_clock: CeleryClock) -> None:
    with pytest.raises(RuntimeError, match=r"time is not frozen: begin with celery_clock\.freeze"):
        celery_clock.shift("1s")
    assert abs(celery_clock.now.timestamp() - time.time()) < 60
    celery_clock.move_to(NOON)
    celery_clock.shift("1s")
    assert celery_clock.now == datetime.now(timezone.utc) == NOON + timedelta(seconds=1)


def test_a_with_ends_and_the_one_around_it_is_seen_again(celery_clock: CeleryClock) -> None:
    with celery_clock.freeze(NOON) as clock:
        assert clock is celery_clock
        with celery_clock.freeze("2030-01-01T00:00:00Z"):
            celery_clock.shift("1d")
            assert datetime.now(timezone.utc).isoformat() == "2030-01-02T00:00:00+00:00"
        assert datetime.now(timezone.utc) == NOON
    assert abs(time.time() - celery_clock.now.timestamp()) < 60


def test_it_ends_with_the_clock_and_everything_is_put_back() -> None:
    import copyreg
    import datetime as module
    import threading
    import uuid
    from concurrent.futures import ThreadPoolExecutor

    def things() -> list[object]:
        return [
            *(time.time, time.time_ns, time.localtime, time.gmtime, time.strftime, time.ctime, time.asctime),
            *(time.monotonic, time.perf_counter, module.datetime, module.date, datetime, date, uuid.uuid1),
            *(threading.Thread.start, ThreadPoolExecutor.submit, {**copyreg.dispatch_table}),
        ]

    before = things()
    with CeleryClock() as clock:
        first = clock.freeze(NOON)
        clock.freeze(NOON)
        first.unfreeze()
        first.unfreeze()
        assert datetime.now(timezone.utc) == NOON
        assert [one is other for one, other in zip(before, things(), strict=True)].count(False) >= 10
    assert things() == before
    assert all(one is other for one, other in zip(before[:-1], things()[:-1], strict=True))


def test_what_somebody_kept_shows_real_time_afterwards(celery_clock: CeleryClock) -> None:
    with celery_clock.freeze(NOON):
        kept, kept_class = time.time, datetime
    assert abs(kept() - time.time()) < 60
    assert kept_class.now(timezone.utc) - datetime.now(timezone.utc) < timedelta(seconds=60)
    assert datetime.now() - kept_class.today() < timedelta(seconds=60)
