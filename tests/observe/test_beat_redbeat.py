from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import schedule
from redbeat import RedBeatSchedulerEntry
from redbeat.decoder import RedBeatJSONEncoder
from redis import Redis

from pytest_celery_health import AskBeat, BeatFresh, Unseen, judge
from pytest_celery_health.observe.beat.redbeat import last_run
from tests.observe.scene import INFO, Scene
from tests.support.timing import wait_until


class RedBeat:
    """A scene whose beat keeps its schedule in Redis."""

    def __init__(self, url, start_beat, **conf):
        self.conf = {"redbeat_redis_url": url, "redbeat_redis_options": {}, **conf}
        self.scene = Scene(url, **self.conf)
        self.start_beat = start_beat
        self.info = replace(INFO, redbeat=self.conf)

    def add(self, name, seconds):
        RedBeatSchedulerEntry(name, "fleet.nap", schedule(seconds), args=(0,), app=self.scene.app).save()

    def start(self):
        return self.start_beat(
            self.scene.url, beat_scheduler="redbeat.RedBeatScheduler", beat_max_loop_interval=1, **self.conf
        )

    def seen(self, url="", **target):
        return self.scene.look(AskBeat("redbeat", url), app=self.info, **target).beat("redbeat", url)

    def verdict(self, within):
        check = BeatFresh(heartbeat="redbeat", within=within)
        return judge(check, self.scene.look(*check.asks(), app=self.info))


@pytest.fixture
def make(redis_url, start_beat):
    made = []

    def make(**conf):
        made.append(RedBeat(redis_url, start_beat, **conf))
        return made[-1]

    yield make
    for redbeat in made:
        redbeat.scene.close()


def is_time(found):
    return isinstance(found.last_seen, datetime) and found


@pytest.mark.slow
@pytest.mark.parametrize("conf", [{}, {"redbeat_key_prefix": "shop:"}, {"redbeat_lock_key": "mine"}])
def test_last_run_of_a_real_redbeat(make, conf):
    """Beat is as fresh as the latest run among its entries, whatever prefix and lock it uses."""
    redbeat = make(**conf)
    redbeat.add("often", 0.5)
    redbeat.add("daily", 86400)
    redbeat.start()
    found = wait_until(lambda: is_time(redbeat.seen()))
    assert datetime.now(timezone.utc) - found.last_seen < timedelta(seconds=20)
    assert found.note == f"redbeat's last run on {redbeat.scene.url}"
    wait_until(lambda: redbeat.seen().last_seen > found.last_seen)


@pytest.mark.slow
def test_killed_beat_grows_old(make):
    """A killed beat leaves its lock, and its last run grows old."""
    redbeat = make()
    redbeat.add("often", 0.5)
    running = redbeat.start()
    wait_until(lambda: redbeat.verdict("2s").healthy)
    running.kill()
    found = wait_until(lambda: (found := redbeat.verdict("2s")).unhealthy and found)
    assert found.message().startswith("beat was last seen 2.")


def test_stopped_beat_is_gone(make):
    """A beat that was stopped gave its lock back: nobody need wait until its last run is old."""
    redbeat = make()
    redbeat.add("often", 0.5)
    running = redbeat.start()
    wait_until(lambda: redbeat.verdict("1d").healthy)
    os.kill(running.process.pid, signal.SIGTERM)
    found = wait_until(lambda: (found := redbeat.verdict("1d")).unhealthy and found)
    assert found.message() == (
        "beat is not running; wanted seen within 1 d"
        f" (no beat holds redbeat's lock redbeat::lock on {redbeat.scene.url})"
    )


def test_ticks_of_a_beat_with_nothing_to_send(make):
    """With redbeat_lock_timeout known, the lock's time to live tells when beat last ticked."""
    redbeat = make(redbeat_lock_timeout=60)
    redbeat.add("daily", 86400)
    redbeat.start()
    first = wait_until(lambda: is_time(redbeat.seen()))
    ticked = wait_until(lambda: (found := redbeat.seen()).last_seen > first.last_seen and found)
    assert ticked.note == f"redbeat's lock on {redbeat.scene.url}, extended at every tick"


def test_beat_without_a_lock(make):
    """A redbeat whose lock is switched off is judged by its last run alone."""
    redbeat = make(redbeat_lock_key=None)
    redbeat.add("often", 0.5)
    redbeat.start()
    wait_until(lambda: redbeat.verdict("1min").healthy)


def test_looking_never_takes_the_lock(make, redis_url):
    """The lock belongs to the same beat after a look, and no key is new."""
    redbeat = make()
    redbeat.add("often", 0.5)
    redbeat.start()
    wait_until(lambda: is_time(redbeat.seen()))
    with Redis.from_url(redis_url) as client:
        before = client.get("redbeat::lock"), set(client.keys("redbeat*"))
        redbeat.seen()
        assert (client.get("redbeat::lock"), set(client.keys("redbeat*"))) == before


def test_nothing_sent_so_far(make, redis_url):
    """An entry that was only added, whose "last run" is that time, proves no beat."""
    redbeat = make()
    redbeat.add("often", 0.5)
    with Redis.from_url(redis_url) as client:
        client.set("redbeat::lock", "somebody")
    assert redbeat.seen().last_seen == Unseen(f"redbeat on {redis_url} has sent nothing so far (entries: 1)")


def test_sandbox_has_no_redbeat(make):
    """The sandbox's beat never touches redbeat's keys, so that it can never tell."""
    assert make().seen(sealed=True).last_seen == Unseen(
        "the sandbox's beat keeps its schedule in a file, not in redbeat", never=True
    )


def test_server_of_its_own(make, start_redis):
    """redbeat's Redis may be another than the broker; `url` goes before the app's own setting."""
    other = start_redis(password="s3cret")
    redbeat = make(redbeat_redis_url=other.url())
    redbeat.add("often", 0.5)
    redbeat.start()
    assert "redis://:***@" in wait_until(lambda: is_time(redbeat.seen())).note
    assert redbeat.seen(url=redbeat.scene.url).gone.endswith(f"lock redbeat::lock on {redbeat.scene.url}")


@pytest.mark.parametrize(
    "zone", [timezone.utc, ZoneInfo("America/New_York"), timezone(timedelta(hours=5, minutes=30))]
)
def test_zones_as_redbeat_writes_them(zone):
    """redbeat writes a zone by name or in seconds."""
    run = datetime(2026, 6, 1, 12, 0, 0, 5, tzinfo=zone)
    meta = json.dumps({"last_run_at": run, "total_run_count": 3}, cls=RedBeatJSONEncoder)
    assert last_run(meta.encode()) == run


@pytest.mark.parametrize(
    "meta",
    [
        None,
        b"",
        b"x",
        b"[]",
        b'{"total_run_count": 1}',
        b'{"total_run_count": 1, "last_run_at": null}',
        b'{"total_run_count": 1, "last_run_at": {"year": 1}}',
    ],
)
def test_entries_that_never_ran(meta):
    """An entry without a last run, or with one that says nothing, is left out."""
    assert last_run(meta) is None
