"""Replies are not trusted: whatever a mailbox sends is a finding about its worker, never a traceback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue
from redis import Redis

from pytest_celery_health.facts import AskWorkers, RunningTask, Unseen, Worker, Workers
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.replies import NOBODY, REPLY_LIMIT, Tally
from pytest_celery_health.observe.target import Target
from tests.support.timing import wait_until

GOOD: dict[str, Any] = {
    "ping": {"ok": "pong"},
    "active_queues": [{"name": "celery"}],
    "registered": ["shop.add", "shop.report [rate_limit=10/m]"],
    "stats": {
        "total": {"shop.add": 3},
        "uptime": 12,
        "pool": {"implementation": "celery.concurrency.prefork:TaskPool", "max-concurrency": 4},
    },
    "report": {"ok": "\nsoftware -> celery:5.7.0 (recovery) kombu:5.7.0 py:3.11.7\n"},
    "active": [{"name": "shop.add", "id": "1", "args": ["hunter2"], "kwargs": {}, "time_start": 90.0}],
    "reserved": [{"name": "shop.add", "id": "2", "args": ["hunter2"], "time_start": None}],
    "scheduled": [{"eta": "2026-01-01T00:00:00", "priority": 6, "request": {"name": "shop.add", "id": "3"}}],
}
DETAILS = frozenset({"active_queues", "registered", "stats", "version", "active", "reserved", "scheduled"})


def seen(replies: dict[str, Any], *, name: str = "w1@x") -> Worker:
    """What is made of one worker's replies, by command; bytes go as they are."""
    tally = Tally(DETAILS)
    for request in tally.requests:
        value = replies[request.command]
        body = value if isinstance(value, bytes) else json.dumps({name: value}).encode()
        tally.take(request.ticket, body, "application/json")
    (worker,) = tally.workers(now=100.0).answered
    return worker


def test_good_replies() -> None:
    worker = seen(GOOD)
    assert worker.malformed == ()
    assert (worker.name, worker.answers, worker.queues) == ("w1@x", 1, ("celery",))
    assert worker.tasks == {"shop.add", "shop.report"}
    assert (worker.pool, worker.pool_size, worker.uptime) == ("prefork", 4, 12.0)
    assert (worker.version, worker.accepted) == ("5.7.0", {"shop.add": 3})
    assert worker.active == (RunningTask("shop.add", 10.0, "1"),)
    assert worker.reserved == (RunningTask("shop.add", None, "2"),)
    assert worker.scheduled == (RunningTask("shop.add", None, "3"),)
    assert "hunter2" not in repr(worker)


@pytest.mark.parametrize(
    ("command", "value", "says"),
    [
        ("ping", {"error": "no"}, "ping: error no"),
        ("ping", None, "ping: None"),
        ("active_queues", {"error": "KeyError('active_queues')"}, "active_queues: error KeyError"),
        ("active_queues", None, "active_queues: None"),
        ("active_queues", ["celery"], "a queue without a name: 'celery'"),
        ("active_queues", [{"name": 5}], "a queue without a name"),
        ("registered", {"a": 1}, "registered: a dict of 1"),
        ("registered", [["a"]], "a task that is a list of 1"),
        ("stats", [], "stats: a list of 0"),
        ("stats", {"total": 5}, "a total that is 5"),
        ("stats", {"total": {"a": "many"}}, "a count that is 'many'"),
        ("stats", {"total": {}, "uptime": "long"}, "an uptime that is 'long'"),
        ("stats", {"total": {}, "uptime": 1e300}, "an uptime that is 1e+300"),
        ("stats", {"total": {}, "pool": {"max-concurrency": "N/A"}}, "a pool size that is 'N/A'"),
        ("report", {"ok": "who knows"}, "report: no version in a dict of 1"),
        ("active", [None], "a task that is None"),
        ("active", [{"id": "1"}], "a task without a name"),
        ("active", [{"name": "a", "time_start": "noon"}], "a starting time that is 'noon'"),
        ("scheduled", [{"request": None}], "an entry without a request"),
        ("active", b"\x80\x04garbage", "active: not JSON"),
        ("active", b"[" * 100_000, "active: not JSON"),
        ("active", b"[1, 2]", "not one node's name and its answer: a list of 2"),
        ("active", b'{"w1@x": ' + b" " * REPLY_LIMIT + b"1}", "of which at most 1,000,000 are read"),
    ],
)
def test_a_malformed_reply_is_told_of_its_worker(command: str, value: Any, says: str) -> None:
    tally = Tally(DETAILS)
    for request in tally.requests:
        reply = value if request.command == command else GOOD[request.command]
        body = reply if isinstance(reply, bytes) else json.dumps({"w1@x": reply}).encode()
        tally.take(request.ticket, body, "application/json")
    answered = tally.workers(now=100.0).answered
    problems = [problem for worker in answered for problem in worker.malformed]
    assert says in " ".join(problems)
    assert {worker.name for worker in answered} <= {"w1@x", NOBODY}
    assert all(len(problem) <= 200 for problem in problems)


def test_what_a_malformed_reply_was_about_is_unseen() -> None:
    worker = seen({**GOOD, "stats": 5})
    assert isinstance(worker.pool_size, Unseen)
    assert isinstance(worker.uptime, Unseen)
    assert worker.queues == ("celery",)


def test_other_content_types_are_never_opened() -> None:
    tally = Tally(frozenset())
    tally.take(tally.requests[0].ticket, b"cos\nsystem\n(S'exit'\ntR.", "application/x-python-serialize")
    (worker,) = tally.workers(0.0).answered
    assert worker.malformed == ("ping: content type 'application/x-python-serialize'; only JSON is read",)


def test_a_name_is_cut_and_cannot_draw_on_a_terminal() -> None:
    worker = seen(GOOD, name="\x1b[31mw" + "1" * 1000)
    assert len(worker.name) == 255
    assert worker.name.isprintable()


def test_a_reply_to_nobodys_ticket_is_left_out() -> None:
    tally = Tally(frozenset())
    tally.take("other", b'{"w1@x": {"ok": "pong"}}', "application/json")
    tally.take(None, b'{"w1@x": {"ok": "pong"}}', "application/json")
    assert tally.workers(0.0) == Workers()


def test_no_more_is_taken_in_than_memory_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_celery_health.observe.replies.TOTAL_LIMIT", 50)
    tally = Tally(frozenset())
    tally.reached(1000)
    for number in range(10):
        tally.take(tally.requests[0].ticket, b'{"w%d@x": {"ok": "pong"}}' % number, "application/json")
    assert tally.full
    assert tally.complete
    assert len(tally.workers(0.0).answered) < 3


def test_who_answers_ping_alone_is_beat() -> None:
    tally = Tally({"stats"})
    tally.take(tally.requests[0].ticket, b'{"timer@x": {"ok": "pong"}}', "application/json")
    assert tally.workers(0.0) == Workers(beats=("timer@x",))


@contextmanager
def mailbox(url: str, reply: Callable[[dict[str, Any]], tuple[bytes, str]]) -> Iterator[None]:
    """A real mailbox on a real broker that answers with the bytes and content type that `reply` gives."""
    over = threading.Event()
    ready = threading.Event()

    def serve() -> None:
        with Connection(url) as connection:
            channel = connection.default_channel
            exchange = Exchange("celery.pidbox", "fanout", durable=False)

            def on_message(message: Any) -> None:
                request = json.loads(message.body)
                to = request["reply_to"]
                body, kind = reply(request)
                answer = channel.prepare_message(
                    body, content_type=kind, content_encoding="binary", headers={"ticket": request["ticket"]}
                )
                Exchange(to["exchange"], "direct", durable=False)(channel).declare()
                channel.basic_publish(answer, exchange=to["exchange"], routing_key=to["routing_key"])

            queue = Queue("liar@x.celery.pidbox", exchange, durable=False, auto_delete=True)
            with connection.Consumer([queue], no_ack=True, on_message=on_message):
                ready.set()
                while not over.is_set():
                    try:
                        connection.drain_events(timeout=0.05)
                    except TimeoutError:
                        continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ready.wait(10)
        client = Redis.from_url(url)
        wait_until(lambda: client.publish(f"/{url.rpartition('/')[2]}.celery.pidbox", "") == 1)
        client.close()
        yield
    finally:
        over.set()
        thread.join(10)


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"\x00\xff\xfe", "application/json", "ping: not JSON"),
        (b'{"liar@x": {"ok": "pong"}}', "application/x-python-serialize", "only JSON is read"),
        (b'{"liar@x": ' + b"[" * 2_000_000, "application/json", "are read"),
    ],
)
def test_a_liar_on_a_real_broker(body: bytes, kind: str, says: str, redis_url: str) -> None:
    with mailbox(redis_url, lambda _: (body, kind)):
        workers = look(Target("t", redis_url), [AskWorkers(frozenset())], deadline=5).snapshot.workers
    assert isinstance(workers, Workers)
    (worker,) = workers.answered
    assert says in worker.malformed[0]


def test_a_flood_is_not_taken_in(redis_url: str) -> None:
    body = b'{"liar@x": [' + b"1," * 450_000 + b"1]}"
    details = frozenset({"active", "reserved", "scheduled", "stats"})

    def flood(request: dict[str, Any]) -> tuple[bytes, str]:
        return body, "application/json"

    with mailbox(redis_url, flood):
        found = look(Target("t", redis_url), [AskWorkers(details)], deadline=5)
    assert isinstance(found.snapshot.workers, Workers)
    assert found.received > 4_000_000
    (worker,) = found.snapshot.workers.answered
    assert len(worker.malformed) == 5
