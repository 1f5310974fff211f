"""What code under test sees while time is frozen: a plain time, however it asks."""

from __future__ import annotations

import copy
import datetime as datetime_module
import functools
import json
import logging
import pickle
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from time import ctime, gmtime, localtime, strftime, time_ns
from time import time as bound
from zoneinfo import ZoneInfo

import pytest

from pytest_celery_health import Beat, BeatFresh, Snapshot, judge
from pytest_celery_health.clock import CeleryClock
from tests.clock.conftest import NOON

EPOCH = NOON.timestamp()


def imports_within():
    from datetime import datetime
    from time import time

    return datetime.now(timezone.utc).timestamp() == time()  # both, at once


ASK: dict[str, tuple[Callable[[], object], object]] = {
    "time.time": (lambda: time.time(), EPOCH),
    "a bound time": (lambda: bound(), EPOCH),
    "time_ns": (lambda: time_ns(), int(EPOCH) * 10**9),
    "clock_gettime": (lambda: time.clock_gettime(time.CLOCK_REALTIME), EPOCH),
    "clock_gettime_ns": (lambda: time.clock_gettime_ns(time.CLOCK_REALTIME), int(EPOCH) * 10**9),
    "gmtime": (lambda: gmtime()[:6], (2026, 1, 15, 12, 0, 0)),
    "localtime": (lambda: localtime()[:6], (2026, 1, 15, 13, 0, 0)),
    "strftime": (lambda: strftime("%H:%M %Z"), "13:00 CET"),
    "ctime": (lambda: ctime(), "Thu Jan 15 13:00:00 2026"),
    "asctime": (lambda: time.asctime(), "Thu Jan 15 13:00:00 2026"),
    "datetime.now": (lambda: datetime.now(), datetime(2026, 1, 15, 13)),
    "datetime.datetime.now": (lambda: datetime_module.datetime.now(timezone.utc), NOON),
    "now in a zone": (lambda: datetime.now(ZoneInfo("Asia/Tokyo")).isoformat(), "2026-01-15T21:00:00+09:00"),
    "datetime.today": (lambda: datetime.today(), datetime(2026, 1, 15, 13)),
    "date.today": (lambda: date.today(), date(2026, 1, 15)),
    "imported in a function": (imports_within, True),
    "as a default": (lambda: iter(time.time, None).__next__(), EPOCH),
    "through a partial": (lambda: functools.partial(time.time)(), EPOCH),
    "explicit moments are what they are": (
        lambda: (localtime(0)[:5], gmtime(0)[:5], strftime("%Y", gmtime(0)), ctime(0)[-4:]),
        ((1970, 1, 1, 1, 0), (1970, 1, 1, 0, 0), "1970", "1970"),
    ),
}


@pytest.mark.parametrize("how", ASK)
def test_every_way_to_ask_sees_the_frozen_moment(celery_clock: CeleryClock, berlin: None, how: str) -> None:
    ask, seen = ASK[how]
    celery_clock.freeze(NOON)
    assert ask() == seen


def test_utcnow_sees_it_and_is_as_deprecated_as_ever(celery_clock: CeleryClock) -> None:
    celery_clock.freeze(NOON)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert datetime.utcnow() == datetime(2026, 1, 15, 12)
    assert [warning.filename for warning in warned] == [__file__] * (sys.version_info >= (3, 12))


def test_it_is_the_frozen_moment_to_the_microsecond(celery_clock: CeleryClock) -> None:
    for microsecond in (1, 123457, 999999):
        moment = NOON.replace(microsecond=microsecond)
        celery_clock.move_to(moment)
        assert datetime.now(timezone.utc) == moment
        assert time.time_ns() % 10**9 == microsecond * 1000
        assert datetime.fromtimestamp(time.time(), timezone.utc) == moment


def test_the_second_hour_of_the_night_when_clocks_go_back(celery_clock: CeleryClock, berlin: None) -> None:
    celery_clock.freeze("2026-10-25T00:30:00Z")
    assert (datetime.now(), datetime.now().fold) == (datetime(2026, 10, 25, 2, 30), 0)
    celery_clock.shift("1h")
    assert (datetime.now(), datetime.now().fold) == (datetime(2026, 10, 25, 2, 30), 1)
    assert datetime.now().astimezone(timezone.utc) == celery_clock.now
    assert (time.localtime().tm_hour, time.localtime().tm_isdst) == (2, 0)
    assert time.mktime(time.localtime()) == time.time()
    assert datetime.now(ZoneInfo("Europe/Berlin")).fold == 1


def test_values_are_plain_and_no_fake_is_in_a_message(celery_clock: CeleryClock) -> None:
    plain = type(NOON)
    with celery_clock.freeze(NOON):
        values = [
            datetime.now(),
            datetime.now(timezone.utc),
            datetime(2026, 1, 15, 12),
            datetime.fromisoformat("2026-01-15T12:00:00"),
            datetime.strptime("2026-01-15", "%Y-%m-%d"),
            datetime.fromtimestamp(0),
            datetime.combine(date.today(), datetime.min.time()),
            datetime.now() + timedelta(days=1),
            copy.deepcopy(datetime.now()),
            pickle.loads(pickle.dumps(datetime.now())),
        ]
        assert isinstance(NOON, datetime)
        assert isinstance(NOON, date)
        assert issubclass(plain, datetime)
        assert not isinstance(date.today(), datetime)
        assert copy.copy(date.today()) == date(2026, 1, 15)
    assert {type(value) for value in values} == {plain}


def test_what_is_pickled_is_read_where_nothing_of_ours_is(celery_clock: CeleryClock) -> None:
    with celery_clock.freeze(NOON):
        message = {"at": datetime.now(timezone.utc), "day": date.today()}
        pickled = [pickle.dumps(message, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    code = "import pickle, sys; print([str(pickle.loads(bytes.fromhex(each))) for each in sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *(each.hex() for each in pickled)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.replace("'", '"').replace('"at"', "at").replace('"day"', "day")) == [
        str(message).replace("'", "") for _ in pickled
    ]


def test_a_class_made_of_datetime_meanwhile_is_one_of_its_own(celery_clock: CeleryClock) -> None:
    celery_clock.freeze(NOON)

    class Deadline(datetime):
        """Of the facade, as `datetime` is meanwhile."""

    assert type(Deadline.now()) is Deadline
    assert Deadline.now(timezone.utc) == NOON
    assert isinstance(Deadline.today(), Deadline)
    assert not isinstance(datetime.now(), Deadline)


def test_uuids_of_one_moment_differ_and_tell_it(celery_clock: CeleryClock) -> None:
    celery_clock.freeze(NOON)
    made = [uuid.uuid1() for _ in range(1000)]
    assert len(set(made)) == 1000
    seconds = [(each.time - 0x01B21DD213814000) / 1e7 for each in made]
    assert all(0 <= each - EPOCH < 0.001 for each in seconds)
    assert {(each.version, each.node) for each in made} == {(1, uuid.uuid1().node)}


def test_records_that_the_code_logs_are_of_that_moment(
    celery_clock: CeleryClock, caplog: pytest.LogCaptureFixture
) -> None:
    celery_clock.freeze(NOON)
    logging.getLogger("shop").warning("late")
    assert [record.created for record in caplog.records] == [EPOCH]


def test_structlogs_stamps_are_of_that_moment(celery_clock: CeleryClock) -> None:
    structlog = pytest.importorskip("structlog")
    stamp = structlog.processors.TimeStamper(fmt="iso")
    celery_clock.freeze(NOON)
    assert stamp(None, "info", {})["timestamp"] == "2026-01-15T12:00:00Z"


def test_a_gauge_is_set_to_that_moment(celery_clock: CeleryClock) -> None:
    prometheus_client = pytest.importorskip("prometheus_client")
    gauge = prometheus_client.Gauge("beat_seen", "Heartbeat", registry=None)
    celery_clock.freeze(NOON)
    gauge.set_to_current_time()
    assert gauge._value.get() == EPOCH


def test_djangos_now_is_that_moment(celery_clock: CeleryClock) -> None:
    pytest.importorskip("django")
    from django.conf import settings
    from django.utils import timezone as django_timezone

    if not settings.configured:
        settings.configure(USE_TZ=True)
    celery_clock.freeze(NOON)
    assert django_timezone.now() == NOON


def test_a_snapshot_that_a_test_makes_is_of_that_moment(celery_clock: CeleryClock) -> None:
    beat = Beat(last_seen=NOON)
    celery_clock.freeze(NOON)
    celery_clock.shift("119s")
    assert judge(BeatFresh(within="2min"), Snapshot(beat)).healthy
    celery_clock.shift("2s")
    assert not judge(BeatFresh(within="2min"), Snapshot(beat)).healthy
