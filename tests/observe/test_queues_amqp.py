from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from uuid import uuid4

import pytest
from amqp.exceptions import PreconditionFailed
from kombu import Connection
from kombu import Queue as KombuQueue

from conftest import IMPOSSIBLE
from pytest_celery_health import AskQueues, Queue, Unseen, Worker, Workers
from pytest_celery_health.observe import queues
from tests.observe.scene import Scene
from tests.support.timing import wait_until


@pytest.fixture
def scene(rabbit_url):
    scene = Scene(rabbit_url)
    yield scene
    scene.close()


@pytest.fixture
def declare(rabbit_url):
    """Declares queues of a new name, and deletes them."""
    with Connection(rabbit_url) as connection:
        made = []

        def make(**arguments):
            name = f"scene.{uuid4().hex}"
            made.append(KombuQueue(name, queue_arguments=arguments, channel=connection.default_channel))
            made[-1].declare()
            return name

        yield make
        for queue in made:
            queue.delete()


def put(scene, name, times, **options):
    with scene.app.producer_pool.acquire(block=True) as producer:
        for _ in range(times):
            producer.publish({}, exchange="", routing_key=name, **options)


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("kombu.transport.native_delayed_delivery") is None,
    reason=f"{IMPOSSIBLE}this kombu has no native delayed delivery",
)
def test_tasks_with_an_eta_wait_in_queues_of_their_own(vhost_url, start_worker):
    """With quorum queues Celery has the broker keep them: the queue that they are for holds none of them."""
    conf = {
        "task_default_queue": "work",
        "task_default_queue_type": "quorum",
        "task_default_exchange_type": "topic",
        "worker_detect_quorum_queues": True,
    }
    start_worker(vhost_url, "w1@x", **conf)
    scene = Scene(vhost_url, **conf)
    for _ in range(3):
        scene.app.send_task("fleet.nap", (0,), countdown=60)

    def delayed():
        work, waiting = scene.read("work", "celery_delayed_5").seen
        assert (work.ready, work.consumers) == (0, 1)
        assert waiting.exists
        return waiting.ready

    try:
        wait_until(lambda: delayed() == 3, what="three delayed messages")
    finally:
        scene.close()


@pytest.mark.parametrize(
    "arguments",
    [{}, {"x-queue-type": "quorum"}, {"x-max-priority": 10}, {"x-message-ttl": 600000, "x-max-length": 5000}],
)
def test_ready_messages(scene, declare, arguments):
    """A passive declare tells the depth of any kind of queue, and of its arguments it need know nothing."""
    name = declare(**arguments)
    put(scene, name, 1204, priority=3)

    def ready():
        (queue,) = scene.read(name).seen
        assert queue == Queue(name, ready=queue.ready, exists=True, consumers=0)
        return queue.ready

    wait_until(lambda: ready() == 1204)


def test_priority_queue_stays_as_it_was(scene, declare):
    """Only the declare that made the queue, with its x-max-priority, is accepted after the look as well."""
    name = declare(**{"x-max-priority": 10})
    scene.read(name)
    with Connection(scene.url) as connection:
        KombuQueue(name, max_priority=10, channel=connection.default_channel).declare()
        with pytest.raises(PreconditionFailed):
            KombuQueue(name, channel=connection.default_channel).declare()


def test_pattern_finds_only_what_others_know(scene, declare):
    """AMQP lists no queues: one that neither a worker nor the app names matches no pattern."""
    known, orphan = declare(), declare()
    put(scene, orphan, 3)
    workers = Workers((Worker("w1", queues=(known,)),))
    found = scene.read("scene.*", workers=workers)
    assert ([queue.name for queue in found.seen], found.unlisted) == ([known], None)


def test_missing_is_not_empty(scene, declare):
    """A queue that is missing is told from an empty one, and those after it are still read."""
    first, last, missing = declare(), declare(), f"scene.{uuid4().hex}"
    found = scene.read(first, missing, "also-missing", last)
    assert found.seen == (
        Queue(first, ready=0, exists=True, consumers=0),
        Queue(missing, ready=0, exists=False, consumers=0),
        Queue("also-missing", ready=0, exists=False, consumers=0),
        Queue(last, ready=0, exists=True, consumers=0),
    )
    assert found.known == {first, last, "celery"}


def test_looking_creates_no_queue(scene):
    """After the look a missing queue is as missing as before."""
    missing = f"scene.{uuid4().hex}"
    scene.read(missing, progress_over=0.1)
    with Connection(scene.url) as connection, pytest.raises(connection.channel_errors) as error:
        connection.default_channel.queue_declare(missing, passive=True)
    assert error.value.reply_code == 404


def test_consumers_are_the_brokers_count(scene, declare):
    """RabbitMQ counts consumers itself, of whatever kind they are."""
    name = declare()
    with Connection(scene.url) as connection:
        consumer = connection.Consumer(KombuQueue(name, no_declare=True), callbacks=[print])
        consumer.consume()
        assert scene.read(name).seen[0].consumers == 1


def test_refused_queue_is_that_queues_matter(scene, declare):
    """A queue that is exclusive to somebody else is unseen; the others are read."""
    name = declare()
    with Connection(scene.url) as connection:
        exclusive = KombuQueue(f"scene.{uuid4().hex}", exclusive=True, channel=connection.default_channel)
        exclusive.declare()
        refused, good = scene.read(exclusive.name, name).seen
    assert isinstance(refused.ready, Unseen)
    assert refused.ready.why.startswith(
        "the broker refused a passive declare of it: Queue.declare: (405) RESOURCE_LOCKED"
    )
    assert good.ready == 0


def test_unacked_is_never_told(scene):
    """Only the management API knows what is unacknowledged."""
    assert scene.read(unacked=True).unacked == Unseen(
        "AMQP does not tell what is unacknowledged; ask the management API", never=True
    )


def test_nothing_is_read_after_the_deadline(scene):
    """A look whose time is up says so instead of waiting."""
    with scene.context() as context:
        late = replace(context, deadline=type(context.deadline)(0))
        found = queues.read(late, [AskQueues(("celery",))])
    assert found.seen[0].ready == Unseen("the deadline passed before it was looked at")
