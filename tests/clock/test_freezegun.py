"""Beside a `freeze_time` that the project's tests use already."""

from __future__ import annotations

import time
from datetime import date, datetime, timezone
from time import monotonic, time_ns
from time import time as bound

import pytest
from freezegun import freeze_time
from freezegun.api import FakeDatetime

from pytest_celery_health.clock import CeleryClock
from tests.clock.conftest import NOON

YEAR_2030 = datetime(2030, 1, 1, tzinfo=timezone.utc)


def seen() -> set[float]:
    return {bound(), time.time(), time_ns() / 1e9, datetime.now(timezone.utc).timestamp()}


def test_freezegun_alone_stops_the_clocks_that_deadlines_are_made_of() -> None:
    """What this package would be of no use for, if it were not so."""
    with freeze_time(NOON):
        assert time.monotonic() == time.monotonic() == monotonic()


def test_the_inner_of_two_is_seen_whichever_it_is(celery_clock: CeleryClock) -> None:
    with freeze_time(YEAR_2030), celery_clock.freeze(NOON):
        assert seen() == {NOON.timestamp()}
        with freeze_time(YEAR_2030) as freezer:
            assert seen() == {YEAR_2030.timestamp()}
            freezer.tick(5)
            assert seen() == {YEAR_2030.timestamp() + 5}
            assert date.today() == date(2030, 1, 1)
        assert seen() == {NOON.timestamp()}
        celery_clock.shift("1s")
        assert seen() == {NOON.timestamp() + 1}


def test_each_leaves_the_other_as_it_was(celery_clock: CeleryClock) -> None:
    with freeze_time(YEAR_2030):
        before = (time.time, time.monotonic, datetime, bound, monotonic)
        with celery_clock.freeze(NOON):
            pass
        assert before == (time.time, time.monotonic, datetime, bound, monotonic)
        assert seen() == {YEAR_2030.timestamp()}
    with celery_clock.freeze(NOON):
        before = (time.time, time.monotonic, datetime, bound, monotonic)
        with freeze_time(YEAR_2030):
            pass
        assert before == (time.time, time.monotonic, datetime, bound, monotonic)
        assert seen() == {NOON.timestamp()}
    assert datetime is type(NOON)
    assert type(bound).__name__ == type(monotonic).__name__ == "builtin_function_or_method"


def test_the_clocks_that_freezegun_stopped_go_on_inside(celery_clock: CeleryClock) -> None:
    with freeze_time(YEAR_2030), celery_clock.freeze(NOON):
        for clock in (time.monotonic, monotonic, time.perf_counter):
            before = clock()
            time.sleep(0.001)
            assert clock() > before
        with freeze_time(YEAR_2030):
            before = time.monotonic()
            time.sleep(0.001)
            assert time.monotonic() > before


def test_freezeguns_own_zone_holds_inside_its_freeze(celery_clock: CeleryClock, berlin: None) -> None:
    with celery_clock.freeze(NOON):
        assert datetime.now().hour == 13
        with freeze_time("2030-01-01T06:00:00Z", tz_offset=5):
            assert (datetime.now().hour, date.today()) == (11, date(2030, 1, 1))
        assert (time.localtime().tm_hour, time.strftime("%H")) == (13, "13")


def test_a_moment_of_freezeguns_own_class_is_a_moment(celery_clock: CeleryClock) -> None:
    with freeze_time(YEAR_2030):
        moment = datetime.now(timezone.utc)
        assert type(moment) is FakeDatetime
    celery_clock.freeze(moment)
    assert type(celery_clock.now) is datetime.now().__class__ is type(NOON)
    assert datetime.now(timezone.utc) == YEAR_2030


def test_to_move_what_is_hidden_is_refused(celery_clock: CeleryClock) -> None:
    celery_clock.freeze(NOON)
    with (
        freeze_time(YEAR_2030),
        pytest.raises(RuntimeError, match=r"a freeze_time of freezegun is inside .*: move that one"),
    ):
        celery_clock.shift("1s")
    celery_clock.shift("1s")
    assert seen() == {NOON.timestamp() + 1}


def test_a_freeze_around_it_that_ends_first_ends_it(celery_clock: CeleryClock) -> None:
    """As that of a decorator does, before the fixture's end."""

    @freeze_time(YEAR_2030)
    def decorated() -> None:
        celery_clock.freeze(NOON)
        celery_clock.freeze(NOON)
        celery_clock.shift("1s")
        assert seen() == {NOON.timestamp() + 1}

    for _ in range(2):
        decorated()
        assert datetime is type(NOON)
        assert abs(bound() - time.clock_gettime(time.CLOCK_REALTIME)) < 60
        assert type(bound).__name__ == type(monotonic).__name__ == "builtin_function_or_method"
        with pytest.raises(RuntimeError, match="time is not frozen"):
            celery_clock.shift("1s")


def test_a_decorator_of_freezegun_beside_the_fixture(celery_clock: CeleryClock) -> None:
    @freeze_time("2030-01-01")
    def within() -> set[float]:
        assert seen() == {YEAR_2030.timestamp()}
        with celery_clock.freeze(NOON):
            return seen()

    assert within() == {NOON.timestamp()}


def test_a_freeze_that_ticks_by_itself(celery_clock: CeleryClock) -> None:
    with celery_clock.freeze(NOON), freeze_time(YEAR_2030, auto_tick_seconds=10):
        assert [time.time() - YEAR_2030.timestamp() for _ in range(3)] == [0, 10, 20]
