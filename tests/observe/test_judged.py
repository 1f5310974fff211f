"""What checks say of real workers, queues and heartbeats: red for what is wrong, and then green."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from typing import Any
from uuid import uuid4

import celery
import pytest
from redis import Redis

from conftest import IMPOSSIBLE
from pytest_celery_health import AskWorkers, BeatFresh, QueueDepth, Workers, WorkersAnswer, judge
from pytest_celery_health.checks.base import Check
from pytest_celery_health.observe.look import Look, look
from pytest_celery_health.observe.sockets import GREETING_LIMIT
from pytest_celery_health.sandbox.fleet.simulated import Fleet
from tests.observe.fleet import StartWorker, WorkerProcess
from tests.observe.scene import INFO, Scene
from tests.support.timing import wait_until

pytestmark = pytest.mark.slow

HEALTHY = "healthy"
APP = replace(INFO, tasks=frozenset({"fleet.add", "fleet.nap"}), queues=("celery", "billing"))


class Place(Scene):
    """A scene whose names nobody else uses, and its workers."""

    def __init__(self, url: str, exchange: str, start_worker: StartWorker, **conf: Any) -> None:
        super().__init__(url, control_exchange=exchange, event_exchange=f"{exchange}.ev", **conf)
        self.queue_name = f"{exchange}.q"
        self._start = start_worker

    def start(self, name: str = "w1@x", *arguments: str) -> WorkerProcess:
        return self._start(self.url, name, "-Q", self.queue_name, *arguments, **self.conf)

    def says(self, check: Check, message: str) -> None:
        """The verdict comes to be this one: "healthy", or a message that begins so; "*" is anything."""
        app, seen = {"app": APP, "event_exchange": self.conf["event_exchange"]}, ""

        def matches() -> bool:
            nonlocal seen
            verdict = judge(check, self.look(*check.asks(), **app))
            seen = HEALTHY if verdict.healthy else verdict.message()
            return fnmatchcase(seen, f"{message}*")

        try:
            wait_until(matches)
        except pytest.fail.Exception:
            pytest.fail(f"it says {seen!r}; wanted {message!r}")


@pytest.fixture(params=["redis", "rabbitmq"])
def place(request: pytest.FixtureRequest, start_worker: StartWorker) -> Iterator[Place]:
    if request.param == "redis":
        yield request.getfixturevalue("redis_place")
        return
    exchange = request.getfixturevalue("rabbit_exchange")
    found = Place(request.getfixturevalue("rabbit_url"), exchange, start_worker)
    yield found
    found.close()


@pytest.fixture
def redis_place(redis_url: str, start_worker: StartWorker) -> Iterator[Place]:
    found = Place(redis_url, f"test-{uuid4().hex[:12]}", start_worker)
    yield found
    found.close()


def test_nobody_and_too_few(place: Place) -> None:
    silent = "busy solo workers, frozen ones and dead ones all stay silent"
    place.says(WorkersAnswer(), f"no worker answered; wanted at least 1 ({silent})")
    worker = place.start()
    place.says(WorkersAnswer(), HEALTHY)
    place.says(WorkersAnswer(at_least=2), "1 worker answered; wanted at least 2 (w1@x)")
    both = WorkersAnswer(names=("w1@x", "w2@x"), at_least=2)
    alone = WorkersAnswer(names=("w1@x", "w2@x"))
    place.says(alone, "w2@x did not answer: busy or gone; wanted an answer (w1@x answered)")
    place.start("w2@x")
    place.says(both, HEALTHY)
    worker.kill()
    place.says(both, "1 worker answered; wanted at least 2 (w2@x)")


def test_what_a_worker_is(place: Place) -> None:
    """Asked too much of tasks, pool, uptime and version, and then what is so."""
    place.start("w1@x", "-P", "prefork", "-c", "2")
    gone = "no worker has fleet.gone registered; wanted on some worker (does the worker import the module"
    place.says(WorkersAnswer(tasks=("fleet.add", "fleet.gone")), gone)
    place.says(WorkersAnswer(tasks="all"), HEALTHY)
    place.says(WorkersAnswer(pool_size=3), "w1@x has a pool of 2; wanted at least 3")
    place.says(WorkersAnswer(pool_size=2), HEALTHY)
    place.says(WorkersAnswer(up_for="1h"), "w1@x has been up for ")
    place.says(WorkersAnswer(up_for=1), HEALTHY)
    place.says(WorkersAnswer(version="1.2"), f"w1@x runs Celery {celery.__version__}; wanted 1.2")
    place.says(WorkersAnswer(version=celery.__version__, clock_within="5s"), HEALTHY)


def test_frozen(place: Place) -> None:
    """Redis counts its mailbox; on RabbitMQ it must be named, and is told from one that is gone."""
    place.start("w1@x")
    frozen = place.start("w2@x")
    both = WorkersAnswer(names=("w1@x", "w2@x"))
    place.says(both, HEALTHY)
    frozen.freeze()
    if place.url.startswith("redis"):
        hint = "a frozen worker, a busy solo worker, or a stalled beat"
        place.says(WorkersAnswer(), f"1 mailbox is subscribed but silent; wanted none ({hint})")
        place.says(WorkersAnswer(silent_at_most=1), HEALTHY)
    else:
        place.says(both, "w2@x is subscribed but silent: busy or frozen; wanted an answer")
    frozen.thaw()
    place.says(both, HEALTHY)


def test_busy_solo(redis_place: Place) -> None:
    redis_place.start("w1@x", "-P", "solo")
    redis_place.says(WorkersAnswer(), HEALTHY)
    redis_place.send(redis_place.queue_name, args=(4,))
    redis_place.says(WorkersAnswer(), "no worker answered; wanted at least 1 (busy solo workers, ")
    redis_place.says(WorkersAnswer(), HEALTHY)


@pytest.mark.parametrize("how", ["busy", "frozen"])
def test_silent_consumers(redis_place: Place, how: str) -> None:
    """Who is silent may consume, so it is not told that nobody does, unless nothing moves."""
    queue = redis_place.queue_name
    first, second = redis_place.start("w1@x", "-P", "solo"), redis_place.start("w2@x", "-P", "solo")
    redis_place.says(QueueDepth(queue, consumers_at_least=2), HEALTHY)
    second.freeze()
    one = f"{queue} has 1 consumer"
    redis_place.says(
        QueueDepth(queue, consumers_at_least=2),
        f"cannot tell: {one}, and 1 mailbox is silent; wanted at least 2 (consumed by w1@x)",
    )
    redis_place.says(QueueDepth(queue, consumers_at_least=3), f"{one}; wanted at least 3")
    second.kill()
    if how == "busy":
        redis_place.send(queue, args=(120,))
    else:
        first.freeze()
    redis_place.says(WorkersAnswer(), "no worker answered; wanted at least 1")
    redis_place.send(queue, 8)
    redis_place.says(
        QueueDepth(queue),
        f"cannot tell: {queue} holds 8 ready messages that nobody is seen to consume, and 1",
    )
    redis_place.says(QueueDepth(queue, moves_within=0.3), f"{queue} stood still for 0.3 s with 8 ready")
    first.kill()
    redis_place.says(QueueDepth(queue), f"{queue} holds * ready messages that nobody consumes; wanted")


def test_two_of_one_name(redis_place: Place) -> None:
    redis_place.start("same@x")
    second = redis_place.start("same@x")
    twins = "same@x is the name of 2 workers; wanted one name for each (start each with -n NAME@%h)"
    redis_place.says(WorkersAnswer(), twins)
    second.kill()
    redis_place.says(WorkersAnswer(), HEALTHY)


@pytest.mark.skipif(celery.VERSION < (5, 7), reason=f"{IMPOSSIBLE}beat answers ping since Celery 5.7")
def test_beat_alone(redis_place: Place, start_beat: Callable[..., WorkerProcess]) -> None:
    start_beat(redis_place.url, beat_enable_remote_control=True, **redis_place.conf)
    redis_place.says(WorkersAnswer(), "no worker answered; wanted at least 1 (only celerybeat@")
    redis_place.start()
    redis_place.says(WorkersAnswer(), HEALTHY)


def test_a_clock_that_is_ahead(redis_place: Place) -> None:
    check = WorkersAnswer(clock_within="5s")
    with Fleet(redis_place.url, **redis_place.conf) as fleet:
        ahead = fleet.worker("w1@sim", clock_offset=600)
        redis_place.says(check, "w1@sim has a clock 10 min ahead of ours; wanted within 5 s")
        ahead.change(clock_offset=0)
        redis_place.says(check, HEALTHY)


def test_a_large_fleet_sends_much_and_is_healthy(place: Place) -> None:
    """What is bounded is a flood: workers that hold large tasks send megabytes, all of which are read."""
    held = [{"name": "shop.report", "args": ["x" * 2_500]} for _ in range(100)]
    asks = [*WorkersAnswer(at_least=20).asks(), AskWorkers(frozenset({"active"}))]
    target = place.target(event_exchange=place.conf["event_exchange"])

    def seen() -> Look | None:
        found = look(target, asks, deadline=30)
        return found if judge(WorkersAnswer(at_least=20), found.snapshot).healthy else None

    with Fleet(place.url, **place.conf) as fleet:
        fleet.workers(20, active=held)
        # Simulated in one process, they take their time for a first answer.
        found = wait_until(seen, within=60)
    assert found is not None
    workers = found.snapshot.workers
    assert isinstance(workers, Workers)
    assert [isinstance(one.active, tuple) and len(one.active) for one in workers.answered] == [100] * 20
    assert found.received > 4 * GREETING_LIMIT


def test_depth(place: Place) -> None:
    """Messages of all priorities count, and a queue that nobody consumes is only fine while it is empty."""
    name = place.queue_name
    place.declare(name)
    place.says(QueueDepth(name, ready_below=4), HEALTHY)
    for priority in (0, 3, 6, 9):
        place.send(name, priority=priority)
    deep = f"{name} holds 4 ready messages; wanted below 4"
    place.says(QueueDepth(name, ready_below=4, consumers_at_least=0), deep)
    place.says(QueueDepth(name), f"{name} holds 4 ready messages that nobody consumes; wanted a consumer")
    place.start()
    place.says(QueueDepth(name, ready_below=4, consumers_at_least=1), HEALTHY)


def test_a_misspelt_queue(place: Place) -> None:
    """It is missing, which is not empty; and asking for it does not make it."""
    place.declare(place.queue_name)
    place.start()
    near = place.queue_name
    typo = f"{near}s"
    for _ in range(2):
        place.says(
            QueueDepth(typo), f"{typo} does not exist; wanted an existing queue (did you mean {near}?)"
        )
    place.says(QueueDepth(near), HEALTHY)


@pytest.mark.parametrize(
    "options", [{"global_keyprefix": "team:"}, {"sep": ":", "priority_steps": [0, 5]}], ids=str
)
def test_depth_under_the_apps_own_keys(
    redis_url: str, start_worker: StartWorker, options: dict[str, Any]
) -> None:
    place = Place(redis_url, "team", start_worker, broker_transport_options=options)
    for priority in (0, 9):
        place.send("billing", priority=priority)
    check = QueueDepth("billing", ready_below=2, consumers_at_least=0)
    place.says(check, "billing holds 2 ready messages; wanted below 2")
    with Redis.from_url(redis_url) as client:
        client.delete(*client.keys("*billing*"))
    # kombu's own passive declare of an empty queue is 404.
    place.says(check, HEALTHY)
    place.close()


def test_unacknowledged(redis_url: str, start_worker: StartWorker) -> None:
    place = Place(redis_url, "held", start_worker, task_acks_late=True)
    check = QueueDepth("celery", oldest_unacked_below=1)
    place.says(check, HEALTHY)
    worker = start_worker(redis_url, "w1@x", "-P", "prefork", "-c", "1", **place.conf)
    place.send("celery", args=(3,))
    place.says(check, "a message is * old and unacknowledged; wanted below 1 s (of the whole Redis database")
    place.says(QueueDepth("celery", oldest_unacked_below="visibility_timeout"), HEALTHY)
    place.says(check, HEALTHY)
    worker.kill()
    place.close()


@pytest.mark.parametrize("epoch", [False, True], ids=["ISO 8601", "epoch"])
def test_a_heartbeat(redis_url: str, start_worker: StartWorker, epoch: bool) -> None:
    """Ages are whole, so that a day is no second, and a second ahead no day."""
    place = Place(redis_url, "beat", start_worker)
    check = BeatFresh(heartbeat="redis:heartbeat", within="2min")
    place.says(check, f"cannot tell: no key heartbeat on {redis_url}")
    with Redis.from_url(redis_url) as client:

        def beats(**ago: float) -> None:
            time = datetime.now(timezone.utc) - timedelta(**ago)
            client.set("heartbeat", time.timestamp() if epoch else time.isoformat())

        for ago, message in (
            ({"days": 1}, "beat was last seen 1 d ago; wanted within 2 min"),
            ({"days": 1, "seconds": 10}, "beat was last seen 1 d 10 s ago; wanted within 2 min"),
            ({"seconds": 0}, HEALTHY),
            ({"seconds": -1}, HEALTHY),
            ({"seconds": -60}, "beat was last seen * in the future; wanted a time in the past"),
            ({"seconds": 100}, HEALTHY),
        ):
            beats(**ago)
            place.says(check, message)
        client.set("heartbeat", datetime.now(timezone.utc).replace(tzinfo=None).isoformat())
        place.says(check, "cannot tell: beat's heartbeat * has no time zone (write an aware time")
        place.says(replace(check, naive_is="UTC"), HEALTHY)
        client.set("heartbeat", "yes")
        place.says(check, f"cannot tell: key heartbeat on {redis_url} holds 'yes', which is not a time")
    place.close()
