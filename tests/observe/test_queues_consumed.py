"""Whether anybody works on a queue: real workers on real brokers."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from uuid import uuid4

import psutil
import pytest
from kombu import Connection

from pytest_celery_health import Progress, Queue, QueueDepth, Unseen, Worker, Workers, judge
from pytest_celery_health.facts import NOT_ASKED, merge
from pytest_celery_health.observe import queues
from pytest_celery_health.observe.queues.progress import growth
from tests.observe.scene import Scene
from tests.support.timing import in_time, wait_until

PREFORK = ("-P", "prefork", "-c", "1", "--without-mingle")


@pytest.fixture(params=["redis", "rabbitmq"])
def scene(request):
    if request.param == "redis":
        scene = Scene(request.getfixturevalue("redis_url"))
    else:
        exchange = request.getfixturevalue("rabbit_exchange")
        more = {"control_exchange": exchange, "event_exchange": f"{exchange}.ev"}
        scene = Scene(request.getfixturevalue("rabbit_url"), **more)
    yield scene
    scene.close()


@pytest.fixture
def name(scene):
    """A queue of this test only."""
    name = f"scene.{uuid4().hex}"
    yield name
    with Connection(scene.url) as connection:
        for queue in (name, f"{name}.other"):
            connection.default_channel.queue_delete(queue)
            connection.default_channel.exchange_delete(queue)


@pytest.fixture
def work(scene, start_worker):
    """Starts a prefork worker of one process that consumes this queue, and is seen to."""

    def start(queue):
        worker = start_worker(scene.url, "w1@x", *PREFORK, "-Q", queue, **scene.conf)
        # It says that it is ready a moment before it subscribes to remote control.
        wait_until(lambda: verdict(scene, QueueDepth(queue, consumers_at_least=1))[0].healthy, within=30)
        return worker

    return start


def verdict(scene, check, deadline=5.0):
    """What the check makes of one look, and the queues that were seen."""
    seen = scene.look(*check.asks(), deadline=deadline)
    return judge(check, seen), seen.queues(check.queues)


@pytest.mark.slow
def test_worker_on_another_queue(scene, name, work):
    """A worker that answers ping but consumes another queue leaves the backlog to nobody."""
    work(f"{name}.other")
    scene.send(name, 3)
    wait_until(lambda: verdict(scene, QueueDepth(name, ready_below=3))[0].unhealthy)
    assert verdict(scene, QueueDepth(name))[0].message() == (
        f"{name} holds 3 ready messages that nobody consumes; wanted a consumer"
        f" (start a worker with -Q {name}, or allow it with consumers_at_least = 0)"
    )


@pytest.mark.slow
def test_cancelled_consumer(scene, name, work):
    """A worker whose consumer was cancelled answers ping for ever while the queue grows."""
    work(name)
    check = QueueDepth(name, consumers_at_least=1)
    assert verdict(scene, check)[0].healthy
    scene.app.control.cancel_consumer(name)
    found = wait_until(lambda: (found := verdict(scene, check)[0]).unhealthy and found)
    assert found.message() == f"{name} has no consumer; wanted at least 1"
    for sent in (2, 4):
        scene.send(name, 2)
        wait_until(lambda sent=sent: verdict(scene, check)[1][0].ready == sent)
    assert scene.look(*check.asks()).workers.answered[0].name == "w1@x"
    assert "holds 4 ready messages that nobody consumes" in verdict(scene, QueueDepth(name))[0].message()


@pytest.mark.slow
def test_frozen_pool(scene, name, work):
    """A worker whose pool is frozen answers ping and consumes, and its backlog stands still."""
    worker = work(name)
    children = psutil.Process(worker.process.pid).children()
    for child in children:
        os.kill(child.pid, signal.SIGSTOP)
    scene.send(name, 30)
    check = QueueDepth(name, moves_within=0.5)

    def still():
        found, (queue,) = verdict(scene, check)
        return found.unhealthy and (found, queue.progress)

    found, progress = wait_until(still)
    assert scene.look(*check.asks()).workers.answered[0].name == "w1@x"
    assert isinstance(progress, Progress)
    assert (progress.accepted, progress.interval >= 0.5) == (0, True)
    assert found.message().startswith(f"{name} stood still for 0.")
    assert found.message().endswith("; wanted progress within 0.5 s (its workers accepted no task meanwhile)")
    for child in children:
        os.kill(child.pid, signal.SIGCONT)
    wait_until(lambda: verdict(scene, check)[0].healthy)


@pytest.mark.slow
def test_moving_backlog(scene, name, work):
    """A backlog that is worked on is healthy, and the look ends as soon as that is seen."""
    work(name)
    scene.send(name, 300, args=(0.05,))
    found, (queue,) = verdict(scene, QueueDepth(name, moves_within="1min"))
    assert found.healthy
    assert queue.progress.interval < 5


@pytest.mark.slow
def test_backlog_that_grows_while_it_is_worked_on(scene, name, work):
    """A backlog may grow and move: its oldest message goes, or its workers accept tasks."""
    work(name)
    scene.send(name, 300, args=(0.05,))
    with scene.context() as context:
        workers = scene.look(*QueueDepth(name, moves_within=1).asks()).workers
        # As if more messages had come than were taken.
        seen = [Queue(name, ready=1)]
        (queue,) = queues.watch(
            queues.reader_for(context),
            seen,
            {name: 0.5},
            queues.Known(),
            workers,
            lambda: scene.look(*QueueDepth(name, moves_within=1).asks()).workers,
        )
    assert queue.progress.ready_after > queue.progress.ready_before
    assert queue.progress.oldest_moved or queue.progress.accepted > 0


def test_deadline_before_the_interval_is_over(scene, name):
    """A backlog that stood still for less than the interval is not yet known to stand still."""
    scene.send(name, 3)
    wait_until(lambda: scene.queue(name).ready == 3)
    with scene.context(Workers(), deadline=0.7) as context:
        (_, ask) = QueueDepth(name, moves_within="1h", consumers_at_least=0).asks()
        found = queues.read(context, [ask])
    assert isinstance(found.seen[0].progress, Unseen)
    assert found.seen[0].progress.why.endswith("; the deadline leaves no more of the 1 h")


def test_backlog_that_nobody_consumes_is_not_sampled(scene, name):
    """It is unhealthy already, so nobody waits for what its messages do."""
    scene.send(name, 3)
    wait_until(lambda: scene.queue(name).ready == 3)
    found, (queue,) = in_time(lambda: verdict(scene, QueueDepth(name, moves_within="1h"), deadline=60), 20)
    assert found.message().startswith(f"{name} holds 3 ready messages that nobody consumes; wanted")
    assert queue.progress == Unseen("nobody consumes it, so it was not watched")


def test_only_what_a_check_wants_to_move_is_sampled(scene, name):
    """A backlog is watched for as long as a row of its own says, whatever other rows want."""
    scene.send(name)
    scene.send(f"{name}.other")
    wait_until(lambda: [scene.queue(each).ready for each in (name, f"{name}.other")] == [1, 1])

    def seen(*checks):
        asks = merge(ask for check in checks for ask in check.asks())
        return scene.look(*asks, deadline=60).queues([name, f"{name}.other"])

    moves = QueueDepth(name, moves_within=0.1, consumers_at_least=0)
    sampled, other = seen(moves, QueueDepth(f"{name}.other"))
    assert sampled.progress.interval >= 0.1
    assert other.progress == NOT_ASKED
    later = QueueDepth(f"{name}.other", moves_within=1.5, consumers_at_least=0)
    sampled, other = seen(later, moves)
    assert 0.1 <= sampled.progress.interval < 1.5 <= other.progress.interval


def test_empty_queue_is_not_sampled(scene, name, work):
    """Without a backlog there is nothing to wait for."""
    work(name)
    found, (queue,) = verdict(scene, QueueDepth(name, moves_within="1h"))
    assert found.healthy
    assert queue == replace(queue, ready=0, progress=Queue(name).progress)


def accepting(name, count, queue="billing"):
    return Worker(name, queues=(queue,), accepted={"shop.charge": count} if isinstance(count, int) else count)


@pytest.mark.parametrize(
    ("before", "after", "accepted"),
    [
        ([accepting("w1", 5), accepting("w2", 1)], [accepting("w1", 7), accepting("w2", 1)], 2),
        ([accepting("w1", 5)], [accepting("w1", 3)], 3),
        ([], [accepting("w1", 3)], Unseen("w1 answered only once")),
        ([accepting("w2", 5)], [accepting("w1", 3), accepting("w2", 6)], 1),
        ([accepting("w1", 5)], [], 0),
        ([accepting("w1", 5, "mail")], [accepting("w1", 9, "mail")], 0),
        ([accepting("w1", 5)], [accepting("w1", Unseen("no stats"))], Unseen("no stats")),
    ],
)
def test_growth(before, after, accepted):
    """Only workers of the queue count; one that was started again counts from zero."""
    assert growth(Workers(tuple(before)), Workers(tuple(after)), "billing") == accepted


def test_growth_of_who_is_silent():
    """What a silent worker accepted meanwhile, nobody knows."""
    fleet = Workers((accepting("w1", 5),), subscribed=2)
    assert growth(fleet, fleet, "billing") == Unseen("not every mailbox answered")
    assert growth(fleet, Workers((accepting("w1", 6),), subscribed=2), "billing") == 1
