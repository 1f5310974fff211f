from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from pytest_celery_health import Beat, BeatFresh, Snapshot, Unseen, judge

NOON = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
BERLIN = ZoneInfo("Europe/Berlin")


def verdict(last, check=None, now=NOON):
    """What the check makes of a beat last seen then."""
    return judge(check or BeatFresh(within="2min"), Snapshot(Beat(last, note="redis:beat"), now=now))


@pytest.mark.parametrize(
    ("age", "healthy", "message"),
    [
        (119, True, "beat was last seen 119 s ago; wanted within 2 min (redis:beat)"),
        (120, True, "beat was last seen 2 min ago; wanted within 2 min (redis:beat)"),
        (120.4, False, "beat was last seen 120.400 s ago; wanted within 2 min (redis:beat)"),
        (121, False, "beat was last seen 2 min 1 s ago; wanted within 2 min (redis:beat)"),
        (86400, False, "beat was last seen 1 d ago; wanted within 2 min (redis:beat)"),
        (86410, False, "beat was last seen 1 d 10 s ago; wanted within 2 min (redis:beat)"),
        (-0.001, True, "beat was last seen 0 s ago; wanted within 2 min (redis:beat)"),
        (-1, True, "beat was last seen 1 s in the future; wanted within 2 min (redis:beat)"),
        (-2, True, "beat was last seen 2 s in the future; wanted within 2 min (redis:beat)"),
    ],
)
def test_age_is_counted_in_whole(age, healthy, message):
    """A day and ten seconds is not ten seconds, and a second of clock skew is not a day."""
    found = verdict(NOON - timedelta(seconds=age))
    assert (found.healthy, found.message()) == (healthy, message)


def test_future_is_unhealthy():
    """A heartbeat further in the future than clocks may differ is a clock that lies."""
    found = verdict(NOON + timedelta(seconds=61))
    assert found.unhealthy
    assert found.message() == (
        "beat was last seen 61 s in the future; wanted a time in the past"
        " (the clocks of its writer and this machine disagree)"
    )
    assert verdict(NOON + timedelta(seconds=61), BeatFresh(ahead_at_most="61s")).healthy


def test_naive_time_is_unknown_unless_said():
    """A time without zone could be hours off, so it is unknown until the contract says that it is UTC."""
    naive = datetime(2026, 6, 1, 11, 59)
    assert verdict(naive).unknown
    assert verdict(naive).message() == (
        "cannot tell: beat's heartbeat 2026-06-01T11:59:00 has no time zone"
        ' (write an aware time, or set naive_is = "UTC")'
    )
    utc = BeatFresh(within="2min", naive_is="UTC")
    assert verdict(naive, utc).healthy
    assert verdict(naive, utc, now=NOON.astimezone(BERLIN)).healthy
    assert verdict(naive - timedelta(minutes=2), utc).unhealthy


def test_age_is_that_of_the_moment_it_was_read():
    """What else a look had to wait for makes no heartbeat old, and hides none that is in the future."""
    read = NOON - timedelta(seconds=300)
    fresh = Beat(read - timedelta(seconds=1), read_at=read)
    assert (
        judge(BeatFresh(within="2s"), Snapshot(fresh, now=NOON))
        .message()
        .startswith("beat was last seen 1 s ago; wanted within 2 s")
    )
    ahead = judge(BeatFresh(), Snapshot(Beat(NOON, read_at=read), now=NOON))
    assert ahead.message().startswith("beat was last seen 5 min in the future; wanted a time in the past")


@pytest.mark.parametrize(
    ("last", "now", "healthy"),
    [
        # The night the clock goes back: 02:30 comes twice.
        (datetime(2026, 10, 25, 2, 30, fold=0), datetime(2026, 10, 25, 2, 31, fold=0), True),
        (datetime(2026, 10, 25, 2, 30, fold=0), datetime(2026, 10, 25, 2, 31, fold=1), False),
        # The night it goes forward: 01:59 is followed by 03:00.
        (datetime(2026, 3, 29, 1, 59), datetime(2026, 3, 29, 3, 0), True),
    ],
)
def test_clock_change_in_the_zone_of_both(last, now, healthy):
    """Two times of one zone are compared by the clock of the world, not by the one on the wall."""
    found = verdict(last.replace(tzinfo=BERLIN), now=now.replace(tzinfo=BERLIN))
    assert found.healthy is healthy


def test_unseen_heartbeat_is_unknown():
    """What could not be read is unknown, in the reader's words."""
    found = verdict(Unseen("no key celery_beat on redis://:***@h:6379/0"))
    assert found.unknown
    assert found.message() == "cannot tell: no key celery_beat on redis://:***@h:6379/0"
    assert judge(BeatFresh(), Snapshot()).message() == "cannot tell: it was not looked at (beat)"


def test_beat_that_is_known_to_be_gone_is_unhealthy():
    """A source that proves that no beat runs does not have to wait until the last time is old."""
    gone = Beat(Unseen("gone"), "redbeat", gone="no beat holds redbeat's lock redbeat::lock on redis://h")
    found = judge(BeatFresh(), Snapshot(gone, now=NOON))
    assert found.unhealthy
    assert found.message() == (
        "beat is not running; wanted seen within 2 min (no beat holds redbeat's lock redbeat::lock on redis://h)"
    )


def test_named_heartbeat_is_the_one_judged():
    """With two heartbeats in one look, a check judges the one that it names."""
    seen = Snapshot(
        Beat(NOON - timedelta(hours=1), "file:/run/beat"), Beat(NOON, "redis:beat"), now=NOON, target="t"
    )
    assert judge(BeatFresh(heartbeat="redis:beat"), seen).healthy
    assert judge(BeatFresh(heartbeat="file:/run/beat"), seen).unhealthy
    assert judge(BeatFresh(heartbeat="ping"), seen).unknown


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"within": 0}, "within is 0, which no heartbeat can meet"),
        ({"within": "-2min"}, "within: '-2min' is not a duration; write seconds or '90s', '2min', '1h30min'"),
        ({"within": "2 fortnights"}, "within: '2 fortnights' is not a duration; write seconds or '90s'"),
        ({"ahead_at_most": -1}, "ahead_at_most: -1 is not a duration; it must be zero or more, and finite"),
        ({"naive_is": "CET"}, "naive_is is 'CET'; write 'UTC', or make the times aware"),
        (
            {"heartbeat": "memcached:x"},
            "heartbeat is 'memcached:x'; write redis:KEY, file:PATH, redbeat, ping or",
        ),
        ({"heartbeat": "redis:"}, "heartbeat is 'redis:'; what follows the colon is missing"),
        ({"heartbeat": "ping:x"}, "heartbeat is 'ping:x'; write ping, which nothing follows"),
        ({"heartbeat": "redbeat:"}, "heartbeat is 'redbeat:'; write redbeat, which nothing follows"),
        ({"heartbeat": "call"}, "heartbeat is 'call'; what follows the colon is missing"),
    ],
)
def test_impossible_values(fields, message):
    """What no heartbeat can meet is refused when the check is made, in words for the contract's author."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        BeatFresh(**fields)


def test_snapshot_wants_an_aware_now():
    """A naive "now" would make ages wrong by hours."""
    with pytest.raises(ValueError, match="now is 2026-06-01T12:00:00, without a time zone"):
        Snapshot(now=NOON.replace(tzinfo=None))


def test_two_sources_of_one_key_are_told_apart_by_their_redis() -> None:
    """The same key in two Redis databases is two heartbeats."""
    seen = Snapshot(
        Beat(NOON, "redis:beat", url="redis://a/0"),
        Beat(NOON - timedelta(hours=1), "redis:beat", url="redis://b/0"),
        now=NOON,
    )
    assert judge(BeatFresh(heartbeat="redis:beat", url="redis://a/0"), seen).healthy
    assert judge(BeatFresh(heartbeat="redis:beat", url="redis://b/0"), seen).unhealthy
