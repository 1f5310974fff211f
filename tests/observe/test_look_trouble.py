"""What else may be wrong with a broker, or go wrong in the middle of a look: told in time, in plain words,
without the password."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from freezegun import freeze_time
from redis import Redis

from pytest_celery_health.facts import (
    AskApp,
    AskBeat,
    AskQueues,
    AskSchedule,
    AskWorkers,
    Beat,
    Snapshot,
    Unseen,
)
from pytest_celery_health.observe import clock
from pytest_celery_health.observe.look import Look, look
from pytest_celery_health.observe.target import Target
from tests.observe.fleet import Server, StartRedis, StartWorker, free_port
from tests.observe.proxy import Flood, hang, proxied, server
from tests.support.timing import in_time, wait_until

SECRET = "s3cr/t"
ASKS = (AskWorkers(), AskQueues(("celery",), unacked=True), AskBeat("redis:heartbeat"))
DEADLINE = 0.6
SLACK = 0.25


def why_not(url: str, *, deadline: float = DEADLINE, within: float | None = None, **more: Any) -> str:
    """Why nothing was seen, checked to be said in time, of every fact, and without the password."""
    target = Target("t", url, **more)
    found = in_time(lambda: look(target, ASKS, deadline=deadline), within or deadline + SLACK)
    assert SECRET not in repr(found)
    assert "s3cr%2Ft" not in repr(found)
    seen = found.snapshot
    assert isinstance(seen.workers, Unseen)
    assert isinstance(seen.queues(["celery"]), Unseen)
    assert isinstance(seen.unacked, Unseen)
    assert isinstance(beat_of(seen).last_seen, Unseen)
    return seen.workers.why


def beat_of(seen: Snapshot) -> Beat:
    beat = seen.beat("redis:heartbeat")
    assert isinstance(beat, Beat)
    return beat


def url_of(scheme: str, port: int) -> str:
    return f"{scheme}://me:s3cr%2Ft@127.0.0.1:{port}/0"


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_tls_is_not_begun(scheme: str) -> None:
    more = {"ssl": True} if scheme == "amqps" else {}
    with server(hang) as port:
        why = why_not(url_of(scheme, port), deadline=2, **more)
    assert why == (f"no TLS handshake (2 s; is it a plain port?) from {scheme}://me:***@127.0.0.1:{port}/0")


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_greets_first(scheme: str) -> None:
    def greet(client: socket.socket) -> None:
        client.sendall(b"220 mail.example ESMTP\r\n")

    with server(greet) as port:
        why = why_not(url_of(scheme, port))
    greeted = "another protocol spoken (answered '220 mail.example ESMTP') by "
    assert why.startswith((greeted, "no answer"))


def cut_short(port: int, cut: int, then: str, url: str, **target: Any) -> tuple[Look, int]:
    """A look through a proxy that stops after `cut` bytes, checked to be in time; and the bytes that came."""

    def act() -> tuple[Look, int]:
        with proxied(port, cut, then) as proxy:
            started = clock.monotonic()
            found = look(Target("t", url.format(proxy.port), **target), ASKS, deadline=DEADLINE)
            took.append(clock.monotonic() - started)
            return found, len(proxy.received)

    took: list[float] = []
    found = act()
    while took[-1] >= DEADLINE + SLACK and len(took) < 5:
        found = act()
    assert min(took) < DEADLINE + SLACK, took
    return found


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 7, 30, 70, 150, 300, 600, 1200])
@pytest.mark.parametrize("then", ["hang", "close"])
def test_redis_stops_in_mid_reply(
    cut: int, then: str, start_redis: StartRedis, start_worker: StartWorker
) -> None:
    redis = start_redis(password=SECRET)
    found, received = cut_short(redis.port, cut, then, "redis://:s3cr%2Ft@127.0.0.1:{}/0")
    assert SECRET not in repr(found)
    if received >= cut:
        seen = found.snapshot
        unseen = [seen.workers, seen.queues(["celery"]), beat_of(seen).last_seen]
        assert any(isinstance(fact, Unseen) for fact in unseen)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 7, 300, 520, 560, 600, 660])
@pytest.mark.parametrize("then", ["hang", "close"])
def test_rabbitmq_stops_in_mid_reply(cut: int, then: str, rabbit_url: str, rabbit_exchange: str) -> None:
    url = "amqp://guest:guest@127.0.0.1:{}//"
    found, received = cut_short(5672, cut, then, url, control_exchange=rabbit_exchange)
    assert isinstance(found.snapshot.workers, Unseen) or received < cut


@pytest.mark.parametrize(
    ("url", "flood"),
    [
        ("redis://127.0.0.1:{}/0", (b"$9999999999\r\n", b"x" * 65536)),
        ("amqp://guest:guest@127.0.0.1:{}//", (b"", b"\x08\0\0\0\1\0\0" + b"x" * 65536 + b"\xce")),
    ],
    ids=["redis", "amqp"],
)
def test_a_broker_sends_without_end_in_mid_look(
    url: str,
    flood: tuple[bytes, bytes],
    redis_server: Server,
    rabbit_url: str,
    rabbit_exchange: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pytest_celery_health.observe.connect.LIMIT", 5_000_000)
    port = redis_server.port if url.startswith("redis") else 5672
    with proxied(
        port, then=Flood(*flood, once_asked=False), once=f"{rabbit_exchange}.pidbox".encode()
    ) as proxy:
        why = why_not(url.format(proxy.port), control_exchange=rabbit_exchange)
        assert why.startswith("5 MB came, and no end of it: no broker's answer, from ")
        assert str(proxy.port) in why
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "celery-health look"], within=3)


@pytest.mark.slow
def test_redis_freezes_while_workers_answer(start_redis: StartRedis, start_worker: StartWorker) -> None:
    redis = start_redis()
    worker = start_worker(redis.url())
    client = Redis.from_url(redis.url())
    wait_until(lambda: client.publish("/0.celery.pidbox", ""), what="the worker's mailbox")
    worker.freeze()

    def freeze() -> None:
        wait_until(lambda: client.exists("_kombu.binding.reply.celery.pidbox"), what="a look under way")
        redis.process.send_signal(signal.SIGSTOP)

    freezing = threading.Thread(target=freeze)
    freezing.start()
    started = clock.monotonic()
    found = look(Target("t", redis.url()), ASKS, deadline=1.5)
    assert clock.monotonic() - started < 1.5 + SLACK
    freezing.join()
    client.close()
    assert isinstance(found.snapshot.workers, Unseen)
    assert found.snapshot.workers.why.startswith(("no more answers (1.5 s) from ", "no answer within 1.5 s"))


def test_redis_rejects_the_password(start_redis: StartRedis) -> None:
    redis = start_redis(password="right")
    why = why_not(f"redis://:s3cr%2Ft@127.0.0.1:{redis.port}/0", within=0.5)
    assert why == f"password rejected by redis://:***@127.0.0.1:{redis.port}/0"
    assert why_not(f"redis://127.0.0.1:{redis.port}/0").startswith("password wanted by ")


def test_redis_has_no_such_database(start_redis: StartRedis) -> None:
    redis = start_redis()
    assert "no such database" in why_not(redis.url(9999))
    assert "no database's number" in why_not(f"redis://127.0.0.1:{redis.port}/billing")


def test_rabbitmq_rejects_the_password(rabbit_url: str) -> None:
    assert why_not("amqp://guest:s3cr%2Ft@127.0.0.1:5672//").startswith("password rejected by ")


def test_tls_against_a_plain_broker(rabbit_url: str, start_redis: StartRedis) -> None:
    # Redis waits for the end of a line, which the greeting may not have.
    why = why_not(f"rediss://127.0.0.1:{start_redis().port}/0", deadline=2)
    assert why.startswith(("no TLS spoken (", "no TLS handshake (2 s; is it a plain port?) from "))
    why = why_not("amqps://guest:guest@127.0.0.1:5672//", deadline=2, ssl=True)
    assert why.startswith("no TLS spoken (")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "the target has no broker URL"),
        ("nonsense://:s3cr%2Ft@x", "no transport that kombu knows"),
        ("redis://:s3cr%2Ft@127.0.0.1:99999/0", "no broker's URL"),
        ("redis://127.0.0.1:1/0?db=1", "no broker's URL (kombu takes no db behind its ?): redis://"),
        ("redis+socket:///nowhere/redis.sock", "No such file or directory: "),
        ("sentinel://:s3cr%2Ft@127.0.0.1:1/0", "no master_name in"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # redis-py 5 leaves a socket
def test_wrong_urls(url: str, says: str) -> None:
    assert says in why_not(url)


def test_every_broker_of_a_failover_list_is_tried_and_named(start_redis: StartRedis) -> None:
    first, second = free_port(), free_port()
    why = why_not(f"redis://:s3cr%2Ft@127.0.0.1:{first}/0;redis://:s3cr%2Ft@127.0.0.1:{second}/0")
    assert why == (
        f"connection refused by redis://:***@127.0.0.1:{first}/0;"
        f" connection refused by redis://:***@127.0.0.1:{second}/0"
    )


def test_without_an_app_its_facts_are_unseen(redis_url: str) -> None:
    seen = look(Target("t", redis_url), [AskSchedule(), AskApp(), AskWorkers()], deadline=5).snapshot
    assert isinstance(seen.schedule, Unseen)
    assert "[tool.celery-health]" in seen.schedule.why
    assert isinstance(seen.app, Unseen)
    assert not isinstance(seen.workers, Unseen)


def test_a_deadline_holds_in_frozen_time(redis_url: str) -> None:
    """freezegun freezes time.monotonic too, so a loop of ours that trusted it would never end."""
    with freeze_time("2020-01-01"), server(hang) as port:
        frozen = time.monotonic()
        assert "no answer" in why_not(url_of("redis", port))
        assert time.monotonic() == frozen
        seen = look(Target("t", redis_url), [AskWorkers()], deadline=5).snapshot
        assert not isinstance(seen.workers, Unseen)
        assert seen.now.year > 2020, "ages are against the real time, as heartbeats are"


def test_a_look_leaves_no_thread(redis_url: str, threads: Callable[[], set[str]]) -> None:
    before = threads()
    look(Target("t", redis_url), ASKS, deadline=5)
    why_not(f"redis://:s3cr%2Ft@127.0.0.1:{free_port()}/0")
    with server(hang) as port:
        why_not(url_of("redis", port))
    wait_until(lambda: threads() == before, within=3)


@pytest.fixture
def threads() -> Callable[[], set[str]]:
    return lambda: {
        thread.name for thread in threading.enumerate() if thread.name.startswith("celery-health")
    }


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_one_cause_is_told_in_one_way_of_all_that_the_broker_was_asked(scheme: str) -> None:
    with server(hang) as port:
        url = url_of(scheme, port)
        asks = (AskWorkers(), AskQueues(("billing",)), AskBeat("ping"))
        seen = look(Target("live", url), asks, deadline=0.4).snapshot
    beat = seen.beat("ping")
    assert isinstance(beat, Beat)
    facts = (seen.workers, seen.queues(["billing"]), beat.last_seen)
    reasons = {each.why for each in facts if isinstance(each, Unseen)}
    assert len(reasons) == 1
    assert "no answer (0.4 s), though the connection was accepted, from" in reasons.pop()


def test_what_has_to_be_imported_is_no_part_of_the_deadline() -> None:
    """In a process that has just started, where nothing else has imported the drivers."""
    code = (
        "import sys\n"
        "from pytest_celery_health.facts import AskWorkers\n"
        "from pytest_celery_health.observe import look\n"
        "from pytest_celery_health.observe.target import Target\n"
        "class Deadline(look.Deadline):\n"
        "    def __init__(self, seconds):\n"
        "        print(*sorted({'kombu.transport.redis', 'redis'} & {*sys.modules}))\n"
        "        super().__init__(seconds)\n"
        "look.Deadline = Deadline\n"
        "look.look(Target('live', 'redis://127.0.0.1:1/0'), [AskWorkers()], deadline=1)\n"
    )
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["kombu.transport.redis", "redis"]
