from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from pytest_celery_health import Unseen
from pytest_celery_health.observe.beat.times import moment

NOON = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
EPOCH = 1780315200


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (b"2026-06-01T12:00:00+00:00", NOON),
        ("2026-06-01T12:00:00Z", NOON),
        ("2026-06-01 12:00:00.000000+00:00", NOON),
        ("2026-06-01T14:00:00+0200", NOON),
        ("2026-06-01T12:00:00.5Z", NOON + timedelta(seconds=0.5)),
        ("2026-06-01T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ('"2026-06-01T12:00:00Z"\n', NOON),
        ("2026-06-01T12:00:00", NOON.replace(tzinfo=None)),
        (b"1780315200", NOON),
        (b"1780315200.25", NOON + timedelta(seconds=0.25)),
        ("1.7803152e9", NOON),
        ("1780315200000", NOON),
        (EPOCH, NOON),
        (EPOCH + 0.25, NOON + timedelta(seconds=0.25)),
        (NOON, NOON),
        (NOON.replace(tzinfo=None), NOON.replace(tzinfo=None)),
        (0, datetime(1970, 1, 1, tzinfo=timezone.utc)),
    ],
)
def test_time(value, time):
    """ISO 8601 and seconds or milliseconds since 1970 are times; a time without zone stays without."""
    found = moment(value, "key beat")
    assert (found, found.tzinfo is None) == (time, time.tzinfo is None)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "key beat holds '', which is not a time"),
        ("yes", "key beat holds 'yes', which is not a time"),
        ("nan", "key beat holds 'nan', which is not a time"),
        ("inf", "key beat holds 'inf', which is not a time"),
        (float("nan"), "key beat holds nan, which is not a time"),
        (True, "key beat holds True, which is not a time"),
        ("9" * 30, "key beat holds 1e+30, which is not a time"),
        ("2026-06-31T12:00:00Z", "key beat holds '2026-06-31T12:00:00Z', which is not a time"),
        ("2026-06-01", "key beat holds 2026-06-01, a day without a time"),
        ({"at": 1}, "key beat holds a dict, which is not a time"),
        ("password-" * 99, "key beat holds 'password-password-password-password-pas..., which is not a time"),
        (
            b"\x80\x05\x95",
            "key beat holds something that is not text, as Django's cache writes it:"
            " use call:, and let a function read the cache",
        ),
    ],
)
def test_garbage(value, why):
    """What is not a time is unseen, and shown in forty characters at most."""
    assert moment(value, "key beat") == Unseen(why)
