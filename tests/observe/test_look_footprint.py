"""What a look leaves behind, and what it says on the wire."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from pytest_celery_health.facts import AskQueues, AskWorkers, Unseen, Workers
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.replies import PREFIX
from pytest_celery_health.observe.target import Target
from tests.observe.fleet import Server, StartWorker, rabbitmqctl
from tests.observe.proxy import proxied
from tests.support.timing import wait_until

pytestmark = pytest.mark.slow

EVERYTHING = (
    AskWorkers(
        frozenset(
            {"active_queues", "stats", "registered", "active", "reserved", "scheduled", "version", "clock"}
        )
    ),
    AskQueues(("celery", "nowhere"), unacked=True),
)
#: Everything that a look may say to Redis.
ALLOWED = {
    *("HELLO", "AUTH", "CLIENT", "SELECT", "PING", "TIME"),
    *("LLEN", "EXISTS", "SMEMBERS", "HLEN", "ZRANGE", "LINDEX", "MULTI", "EXEC"),
    *("SADD", "SREM", "DEL", "PUBLISH", "BRPOP", "RPOP", "SUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE"),
}
REPLIES = "_kombu.binding.reply.celery.pidbox"


def state(url: str) -> dict[str, object]:
    """Every key with its content, but for what workers write by themselves."""
    client = Redis.from_url(url)
    dumped = {key.decode(): client.dump(key) for key in client.keys("*")}
    client.close()
    return dumped


@pytest.fixture
def worker_app(redis_url: str) -> Iterator[Celery]:
    app = Celery("sender", broker=redis_url, set_as_current=False)
    yield app
    app.close()


def until_answered(url: str, **more: Any) -> None:
    def answered() -> bool:
        workers = look(Target("t", url, **more), [AskWorkers()], deadline=5).snapshot.workers
        return isinstance(workers, Workers) and bool(workers.answered)

    wait_until(answered)


def test_redis_is_as_it_was(redis_url: str, start_worker: StartWorker) -> None:
    start_worker(redis_url)
    until_answered(redis_url)
    before = state(redis_url)
    for _ in range(3):
        found = look(Target("t", redis_url), EVERYTHING, deadline=5)
        assert isinstance(found.snapshot.workers, Workers)
        assert found.swept == 0
        assert state(redis_url) == before


def test_redis_is_as_it_was_with_a_prefix(redis_url: str, start_worker: StartWorker) -> None:
    options = {"global_keyprefix": "team:"}
    start_worker(redis_url, broker_transport_options=options)
    until_answered(redis_url, options=options)
    before = state(redis_url)
    assert any(key.startswith("team:") for key in before)
    look(Target("t", redis_url, options=options), EVERYTHING, deadline=5)
    assert state(redis_url) == before


def test_redis_is_told_nothing_but_what_a_look_needs(redis_server: Server, start_worker: StartWorker) -> None:
    start_worker(redis_server.fresh())
    with proxied(redis_server.port) as proxy:
        target = Target("t", f"redis://127.0.0.1:{proxy.port}/0")
        assert isinstance(look(target, EVERYTHING, deadline=5).snapshot.workers, Workers)
        commands = {word.decode().upper() for word in re.findall(rb"\*\d+\r\n\$\d+\r\n(\S+)\r\n", proxy.sent)}
    assert commands <= ALLOWED
    written = re.findall(rb"(?:SADD|SREM|DEL)\r\n\$\d+\r\n(\S+)\r\n(?:\$\d+\r\n(.*)\r\n)?", bytes(proxy.sent))
    assert written
    for key, member in written:
        assert PREFIX.encode() in key or PREFIX.encode() in member


def test_the_received_bytes_are_those_of_the_replies(redis_server: Server, start_worker: StartWorker) -> None:
    database = redis_server.fresh()
    start_worker(database)
    until_answered(database)
    with proxied(redis_server.port) as proxy:
        url = re.sub(r":\d+/", f":{proxy.port}/", database)
        found = look(Target("t", url), EVERYTHING, deadline=5)
        wire = len(proxy.received)
    assert 0.5 * wire < found.received <= wire


def test_a_deadline_leaves_nothing_and_neither_does_the_late_reply(
    redis_url: str, start_worker: StartWorker
) -> None:
    worker = start_worker(redis_url)
    until_answered(redis_url)
    before = state(redis_url)
    worker.freeze()
    found = look(Target("t", redis_url), EVERYTHING, deadline=0.5)
    assert found.took < 0.75
    assert state(redis_url) == before
    worker.thaw()
    until_answered(redis_url)
    assert state(redis_url) == before


LOOKER = """
import sys
from pytest_celery_health.facts import AskWorkers
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.target import Target
print("looking", flush=True)
look(Target("t", sys.argv[1]), [AskWorkers()], deadline=30)
"""


@pytest.fixture
def looking(redis_url: str, start_worker: StartWorker) -> Callable[[], subprocess.Popen[bytes]]:
    """Starts a process that is in mid-look: its one worker is frozen. Returns it when it has asked."""
    worker = start_worker(redis_url)
    until_answered(redis_url)
    worker.freeze()

    def start() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(
            [sys.executable, "-c", LOOKER, redis_url], env=environment, stderr=subprocess.DEVNULL
        )
        client = Redis.from_url(redis_url)
        wait_until(lambda: client.exists(REPLIES), what="a look under way")
        client.close()
        return process

    return start


def test_control_c_leaves_nothing(looking: Callable[[], subprocess.Popen[bytes]], redis_url: str) -> None:
    before = state(redis_url)
    process = looking()
    process.send_signal(signal.SIGINT)
    assert process.wait(5) != 0
    assert state(redis_url) == before


def test_what_a_kill_leaves_is_swept_by_a_later_look(
    looking: Callable[[], subprocess.Popen[bytes]], redis_url: str
) -> None:
    before = state(redis_url)
    process = looking()
    process.kill()
    process.wait(5)
    left = set(state(redis_url)) - set(before)
    assert left == {REPLIES}
    client = Redis.from_url(redis_url)
    (member,) = client.smembers(REPLIES)
    assert look(Target("t", redis_url), [AskWorkers()], deadline=1).swept == 0, "it may still be under way"
    # Now make it an hour old, with a reply that came late.
    client.delete(REPLIES)
    old = re.sub(rb"health\.\d+\.", f"health.{int(time.time()) - 3600}.".encode(), member)
    client.sadd(REPLIES, old)
    client.lpush(old.rpartition(b"\x16")[2], b"{}")
    client.close()
    assert look(Target("t", redis_url), [AskWorkers()], deadline=1).swept == 1
    assert state(redis_url) == before


def test_a_binding_that_is_lost_in_mid_look_is_no_empty_fleet(
    redis_url: str, start_worker: StartWorker
) -> None:
    worker = start_worker(redis_url)
    until_answered(redis_url)
    worker.freeze()
    client = Redis.from_url(redis_url)

    def lose() -> None:
        wait_until(lambda: client.delete(REPLIES))

    losing = threading.Thread(target=lose)
    losing.start()
    seen = look(Target("t", redis_url), [AskWorkers()], deadline=2).snapshot.workers
    losing.join()
    client.close()
    assert isinstance(seen, Unseen)
    assert "lost the binding of our reply queue" in seen.why


def objects_of(vhost: str) -> set[str]:
    """Names of its queues and exchanges."""
    kinds = ("list_queues", "list_exchanges")
    listed = (rabbitmqctl("--no-table-headers", kind, "-p", vhost, "name") for kind in kinds)
    return {name for lines in listed for name in lines.split("\n")}


def test_rabbitmq_is_as_it_was(vhost_url: str, start_worker: StartWorker) -> None:
    url, vhost = vhost_url, vhost_url.rpartition("/")[2]
    untouched = objects_of(vhost)
    look(Target("t", url), EVERYTHING, deadline=5)
    assert objects_of(vhost) == untouched, "nothing is declared where no worker ever was"
    start_worker(url, "w1@x")
    before = objects_of(vhost)
    assert "celery.pidbox" in before
    found = look(Target("t", url), EVERYTHING, deadline=5)
    assert isinstance(found.snapshot.workers, Workers)
    assert found.snapshot.workers.answered
    assert objects_of(vhost) == before
