from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import celery
import pytest
from redis import Redis

from conftest import IMPOSSIBLE
from pytest_celery_health import AskBeat, BeatFresh, Unseen, judge
from pytest_celery_health.observe import beat
from pytest_celery_health.observe.look import look
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox, SandboxSpec
from tests.observe.proxy import Flood, close, drip, server
from tests.observe.scene import INFO, Scene
from tests.support.timing import in_time, wait_until

KEY = "celery_beat_heartbeat"

since_5_7 = pytest.mark.skipif(
    celery.VERSION < (5, 7), reason=f"{IMPOSSIBLE}beat answers ping since Celery 5.7"
)


@pytest.fixture
def scene(redis_url):
    scene = Scene(redis_url)
    yield scene
    scene.close()


def seen(scene, source, url="", deadline=5.0, **target):
    """The Beat of a whole look."""
    return scene.look(AskBeat(source, url), deadline=deadline, **target).beat(source, url)


def put(url, value, key=KEY):
    with Redis.from_url(url) as client:
        client.set(key, value)


@pytest.mark.parametrize("write", [datetime.isoformat, datetime.timestamp])
def test_key_on_the_broker(scene, write):
    """A heartbeat on the broker, as ISO 8601 or as an epoch, is fresh for two minutes and no more."""
    now = datetime.now(timezone.utc)
    put(scene.url, write(now))
    found = seen(scene, f"redis:{KEY}")
    assert abs(found.last_seen - now) < timedelta(milliseconds=1)
    assert found.note == f"key {KEY} on {scene.url}"
    check = BeatFresh(heartbeat=f"redis:{KEY}", within="2min")
    assert judge(check, scene.look(*check.asks())).healthy
    put(scene.url, write(now - timedelta(seconds=125)))
    old = judge(check, scene.look(*check.asks())).message()
    assert old.startswith(
        "beat was last seen 2 min 5 s ago; wanted within 2 min (key celery_beat_heartbeat on"
    )


def test_missing_key(scene):
    """A key that is missing is unknown: nothing was ever written, it expired, or its name is wrong."""
    found = seen(scene, f"redis:{KEY}")
    assert found.last_seen == Unseen(f"no key {KEY} on {scene.url}")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("soon", "holds 'soon', which is not a time"),
        (
            pickle.dumps(1768478400.5),
            "holds something that is not text, as Django's cache writes it: use call:, ",
        ),
    ],
    ids=["garbage", "pickle"],
)
def test_key_that_holds_no_time(scene, value, why):
    """Garbage is unknown, never fresh."""
    put(scene.url, value)
    assert f"key {KEY} on {scene.url} {why}" in seen(scene, f"redis:{KEY}").last_seen.why


def test_key_of_another_kind(scene):
    """A key that is no string is unknown, in Redis' own words."""
    with Redis.from_url(scene.url) as client:
        client.lpush(KEY, "x")
    assert seen(scene, f"redis:{KEY}").last_seen.why.startswith(
        f"Redis refused to read key {KEY} on {scene.url}: WRONGTYPE"
    )


def test_heartbeat_ignores_the_brokers_key_prefix(redis_url):
    """The app's own client wrote the heartbeat, so kombu's key prefix is not in its name."""
    scene = Scene(redis_url, broker_transport_options={"global_keyprefix": "shop:"})
    put(redis_url, str(time.time()))
    assert isinstance(seen(scene, f"redis:{KEY}").last_seen, datetime)
    scene.close()


def test_redis_of_its_own(scene, start_redis, monkeypatch):
    """A heartbeat may be on another server than the broker, whose url may be in a variable."""
    other = start_redis(password="s3cret")
    put(other.url(), "2026-06-01T12:00:00Z")
    found = seen(scene, f"redis:{KEY}", other.url())
    assert found.last_seen == datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
    assert found.note == f"key {KEY} on redis://:***@127.0.0.1:{other.port}/0"
    monkeypatch.setenv("HEARTBEAT_URL", other.url())
    assert seen(scene, f"redis:{KEY}", "env:HEARTBEAT_URL") == replace(found, url="env:HEARTBEAT_URL")
    monkeypatch.delenv("HEARTBEAT_URL")
    assert seen(scene, f"redis:{KEY}", "env:HEARTBEAT_URL").last_seen == Unseen(
        "$HEARTBEAT_URL, the heartbeat's url, is not set"
    )
    missing = seen(scene, "redis:nokey", other.url()).last_seen
    assert missing == Unseen(f"no key nokey on redis://:***@127.0.0.1:{other.port}/0")


def test_sandbox_reads_its_own_broker(scene, start_redis):
    """In the sandbox a heartbeat's url is that of production, and is not looked at."""
    production = start_redis()
    put(production.url(), "2020-01-01T00:00:00Z")
    put(scene.url, "2026-06-01T12:00:00Z")
    found = seen(scene, f"redis:{KEY}", production.url(), sealed=True)
    assert found.last_seen.year == 2026
    with Redis.from_url(production.url()) as client:
        assert int(client.info("clients")["connected_clients"]) == 1


def test_own_redis_that_refuses_or_hangs(scene):
    """A heartbeat's server that refuses or never answers is told within the deadline, its password masked."""
    with socket.create_server(("127.0.0.1", 0)) as hung:
        port = hung.getsockname()[1]
        url = f"redis://:s3cret@127.0.0.1:{port}/0"
        found = in_time(lambda: seen(scene, f"redis:{KEY}", url, deadline=1.0), within=1.25)
    assert found.last_seen.why == (
        "no answer (1 s), though the connection was accepted, from"
        f" redis://:***@127.0.0.1:{port}/0 (key {KEY})"
    )
    refused = seen(scene, f"redis:{KEY}", f"redis://:s3cret@127.0.0.1:{port}/0")
    assert refused.last_seen.why == f"connection refused by redis://:***@127.0.0.1:{port}/0 (key {KEY})"
    lost = seen(scene, f"redis:{KEY}", "redis://:s3cret@nope.invalid/0").last_seen.why
    assert lost == f"no such host: redis://:***@nope.invalid/0 (key {KEY})"
    wrong = seen(scene, f"redis:{KEY}", "memcached://h").last_seen.why
    assert wrong == "memcached://h is not a Redis URL: write redis://, rediss:// or unix://"


@pytest.mark.parametrize(
    ("serve", "why"),
    [
        (drip(b"$100\r\n"), "no answer within 0.6 s from"),
        (close, "connection closed by"),
        (Flood(b"$9999999999\r\n", b"x" * 65536), "5 MB came, and no end of it: no broker's answer, from"),
        (Flood(b"", b"*1\r\n" * 9000), "another protocol spoken (its answers make no sense) by"),
    ],
    ids=["drips", "closes", "sends without end", "is nested without end"],
)
def test_own_redis_that_is_none(scene, monkeypatch, serve, why):
    """A heartbeat's server that is no Redis is told as such, not as the broker, and leaves no thread."""
    monkeypatch.setattr("pytest_celery_health.observe.sockets.LIMIT", 5_000_000)
    with server(serve) as port:
        url = f"redis://:s3cret@127.0.0.1:{port}/0"
        found = in_time(lambda: seen(scene, f"redis:{KEY}", url, deadline=0.6), within=0.85)
        wait_until(lambda: not [t for t in threading.enumerate() if t.name == "celery-health look"], within=3)
    assert found.last_seen.why.startswith(why)
    assert f" redis://:***@127.0.0.1:{port}/0" in found.last_seen.why


def test_broker_that_is_not_redis(rabbit_url, rabbit_exchange):
    """On RabbitMQ a Redis heartbeat needs a url."""
    scene = Scene(rabbit_url, control_exchange=rabbit_exchange)
    assert seen(scene, f"redis:{KEY}").last_seen == Unseen(
        "the broker is amqp, not Redis: say with url where the heartbeat is"
    )
    scene.close()


def test_file(scene, tmp_path):
    """A file's mtime is when beat touched it; a relative path is one of the contract's folder."""
    path = tmp_path / "run" / "beat"
    path.parent.mkdir()
    path.write_text("whatever")
    os.utime(path, (1780315200, 1780315200))
    noon = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
    found = seen(scene, f"file:{path}")
    assert (found.last_seen, found.note) == (noon, f"mtime of {path}")
    assert seen(scene, "file:run/beat", spec=AppSpec("shop", tmp_path)).last_seen == noon
    assert seen(scene, f"file:{path}.gone").last_seen == Unseen(f"no file {path}.gone")
    assert seen(scene, f"file:{path}/x").last_seen == Unseen(f"Not a directory: {path}/x")
    folder = seen(scene, "file:.", spec=AppSpec("shop", tmp_path))
    assert folder.last_seen == Unseen(f"{tmp_path} is a directory; wanted a file")


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["call:slow:never", "redis:beat"])
def test_what_a_look_waits_for_is_no_age(scene, tmp_path, slow):
    """A heartbeat is as old as it was when it was read, and what is read at once waits for nobody's code."""
    (tmp_path / "slow.py").write_text(
        "import time\nfrom celery import Celery\napp = Celery('slow')\ndef never(): time.sleep(60)\n"
        "now = time.time\n"
    )
    fresh, ahead = tmp_path / "beat", tmp_path / "ahead"
    fresh.touch()
    ahead.touch()
    os.utime(ahead, (time.time() + 3.5,) * 2)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        url = "" if slow.startswith("call:") else f"redis://127.0.0.1:{hung.getsockname()[1]}/0"
        checks = [BeatFresh(heartbeat=slow, url=url)]
        checks += [
            BeatFresh(heartbeat=f"file:{file}", within="2s", ahead_at_most=1) for file in (fresh, ahead)
        ]
        checks.append(BeatFresh(heartbeat="call:slow:now"))
        asks = [ask for check in checks for ask in check.asks()]
        found = scene.look(*asks, deadline=4.0, spec=AppSpec("slow:app", tmp_path))
    never, healthy, future, called = (judge(check, found) for check in checks)
    assert never.unknown
    assert healthy.healthy, healthy.message()
    assert called.healthy, called.message()
    assert "in the future; wanted a time in the past" in future.message()


@pytest.fixture
def project(tmp_path, redis_url):
    """A Django project whose beat writes to the cache; `write(when)` does so, as beat's task would."""
    (tmp_path / "settings.py").write_text(
        f"""
import os
SECRET_KEY = "x"
USE_TZ = True
KIND = os.environ.get("CACHE", "django.core.cache.backends.redis.RedisCache")
CACHES = {{"default": {{"BACKEND": KIND, "LOCATION": "{redis_url}"}}}}
"""
    )
    (tmp_path / "shop.py").write_text(
        """
import os, time
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
import django
from celery import Celery
from django.core.cache import cache

django.setup()
app = Celery("shop", broker="memory://")

def last_beat():
    return cache.get("celery_beat_heartbeat")

def write(text):
    from django.utils.dateparse import parse_datetime
    cache.set("celery_beat_heartbeat", parse_datetime(text))

def explode():
    raise RuntimeError("the cache is at redis://:s3cret@h, and s3cret is wrong")

def sleep():
    time.sleep(60)
"""
    )

    def write(text):
        subprocess.run(
            [sys.executable, "-c", f"import shop; shop.write({text!r})"], cwd=tmp_path, check=True, timeout=30
        )

    return AppSpec("shop:app", Path(tmp_path)), write


@pytest.mark.slow
def test_call_reads_what_only_the_project_can(scene, project):
    """The Django cache's key cannot be read from outside, but by a function of the project."""
    spec, write = project
    assert seen(scene, "call:shop:last_beat", spec=spec, deadline=20.0).last_seen == Unseen(
        "shop:last_beat() returned None: no heartbeat so far"
    )
    alone = AppSpec(spec.app, spec.root, env={"CACHE": "django.core.cache.backends.locmem.LocMemCache"})
    assert seen(scene, "call:shop:last_beat", spec=alone, deadline=20.0).last_seen == Unseen(
        "shop:last_beat() returned None: Django's default cache is a LocMemCache, in which each process sees"
        " only what it wrote itself; set CACHES to one that processes share, such as Redis"
    )
    write("2026-06-01T12:00:00Z")
    found = seen(scene, "call:shop:last_beat", spec=spec, deadline=20.0)
    assert found.last_seen == datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
    assert found.note == "shop:last_beat()"
    raw = seen(scene, "redis::1:celery_beat_heartbeat").last_seen.why
    assert "holds something that is not text, as Django's cache writes it: use call:" in raw
    write("2026-06-01T12:00:00")
    naive = seen(scene, "call:shop:last_beat", spec=spec, deadline=20.0)
    assert naive.last_seen == datetime(2026, 6, 1, 12)


@pytest.mark.slow
def test_call_that_fails(scene, project):
    """A function that raises, hangs or does not exist is unknown, and says why."""
    spec, _ = project
    knows = AppSpec(spec.app, spec.root, env={"CACHE_URL": "redis://:s3cret@h"})
    raised = seen(scene, "call:shop:explode", spec=knows, deadline=20.0).last_seen.why
    assert "RuntimeError: the cache is at redis://:***@h, and *** is wrong" in raised
    assert "s3cret" not in raised
    hung = in_time(lambda: seen(scene, "call:shop:sleep", spec=spec, deadline=4.0), within=4.25)
    assert isinstance(hung.last_seen, Unseen)
    missing = seen(scene, "call:shop:last_bate", spec=spec, deadline=20.0).last_seen.why
    assert "last_beat" in missing
    assert seen(scene, "call:shop:last_beat").last_seen == Unseen(
        "shop:last_beat() belongs to the app, and this target has none at hand", never=True
    )


@pytest.mark.slow
def test_sources_in_the_sandbox(tmp_path):
    """In the sandbox a function runs sealed, and sees what the sandbox's own beat and worker wrote."""
    (tmp_path / "shop.py").write_text(
        """
import os, time
from celery import Celery
from redis import Redis

app = Celery("shop", broker="redis://redis.prod.example:6379/0")
app.conf.beat_schedule = {"heartbeat": {"task": "shop.beat", "schedule": 60.0}}

@app.task(name="shop.beat")
def beat():
    Redis.from_url(os.environ["REDIS_URL"]).set("heartbeat", time.time())

def last_beat():
    return Redis.from_url(os.environ["REDIS_URL"]).get("heartbeat")

def last_beat_in_production():
    return Redis.from_url("redis://127.0.0.1:1/0").get("heartbeat")
"""
    )
    app = AppSpec("shop:app", tmp_path, env={"REDIS_URL": "redis://redis.prod.example:6379/3"})
    spec = SandboxSpec(workers=1, beat=("heartbeat",), redirect_env=("REDIS_URL",))

    def last_seen(source, url=""):
        return look(sandbox.target, [AskBeat(source, url)], deadline=20).snapshot.beat(source, url).last_seen

    with Sandbox(spec, app) as sandbox:
        called = last_seen("call:shop:last_beat")
        assert called == last_seen("redis:heartbeat", "redis://redis.prod.example:6379/3")
        assert datetime.now(timezone.utc) - called < timedelta(minutes=1)
        leaked = last_seen("call:shop:last_beat_in_production").why
    assert "the sandbox refused a connection to 127.0.0.1:1" in leaked
    assert "\n" not in leaked


@since_5_7
def test_ping_of_a_real_beat(scene, start_beat):
    """A beat with beat_enable_remote_control (5.7) answers ping, and is no worker."""
    silent = (
        "no beat answered ping: it is stopped, stalled, or without beat_enable_remote_control (Celery 5.7)"
    )
    assert seen(scene, "ping").last_seen == Unseen(silent)
    running = start_beat(scene.url, beat_enable_remote_control=True)
    wait_until(lambda: isinstance(seen(scene, "ping").last_seen, datetime))
    found = seen(scene, "ping")
    assert datetime.now(timezone.utc) - found.last_seen < timedelta(seconds=10)
    assert found.note.startswith("celerybeat@")
    assert found.note.endswith(" answered ping")
    assert seen(scene, "").last_seen >= found.last_seen
    running.freeze()
    assert seen(scene, "ping").last_seen == Unseen(silent)


@pytest.mark.slow
@since_5_7
def test_ping_of_a_stalled_beat(scene, start_beat, tmp_path):
    """A beat whose scheduler hangs stops answering, though its process lives."""
    (tmp_path / "stalled.py").write_text(
        """
import time
from celery.beat import PersistentScheduler

class Stalled(PersistentScheduler):
    def tick(self, *args, **kwargs):
        time.sleep(3600)
"""
    )
    start_beat(
        scene.url,
        beat_enable_remote_control=True,
        beat_scheduler="stalled:Stalled",
        beat_remote_control_max_tick_age=2.0,
    )
    wait_until(lambda: isinstance(seen(scene, "ping").last_seen, datetime))
    wait_until(lambda: isinstance(seen(scene, "ping").last_seen, Unseen))


def test_ping_of_an_older_celery(scene):
    """Before 5.7 beat never answers, which is told apart from a beat that is silent now."""
    from dataclasses import replace

    found = seen(scene, "ping", app=replace(INFO, celery_version="5.4.0"))
    assert found.last_seen == Unseen(
        "beat answers ping from Celery 5.7 on; the app has 5.4.0: name another heartbeat", never=True
    )


def test_sources_are_the_checks(scene):
    """Every source that the check accepts has a reader, and the other way round."""
    rests = {"ping": "", "redbeat": "", "call": ":m:f"}
    for scheme in beat.SOURCES:
        BeatFresh(heartbeat=scheme + rests.get(scheme, ":x"))
    with scene.context() as context:
        assert beat.read(context, "memcached:x", "").last_seen.why.startswith("memcached is not a source")
