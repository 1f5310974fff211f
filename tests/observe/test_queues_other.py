from __future__ import annotations

import pytest
from kombu import Connection

from pytest_celery_health import AskQueues, Queue, Unseen, Workers
from pytest_celery_health.observe import queues
from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.observe.context import Context
from pytest_celery_health.observe.target import Target


def read(connection, *names, **ask):
    context = Context(Target("t", "memory://"), connection, Deadline(5), Workers(), lambda _: Workers())
    return queues.read(context, [AskQueues(names, **ask)])


def test_memory():
    """Queues of this process are read; an empty one exists, and unacked messages are not told."""
    with Connection("memory://") as connection, connection.SimpleQueue("scene") as queue:
        queue.put({})
        found = read(connection, "scene", "missing", unacked=True)
        queue.clear()
        assert read(connection, "scene").seen == (Queue("scene", ready=0, exists=True),)
    assert found.seen == (Queue("scene", ready=1, exists=True), Queue("missing", ready=0, exists=False))
    assert found.unacked == Unseen("memory:// does not tell what is unacknowledged", never=True)


def test_looking_creates_no_queue_in_memory():
    """A second look finds a missing queue as missing as the first did."""
    with Connection("memory://") as connection:
        assert [read(connection, "missing").seen[0].exists for _ in range(2)] == [False, False]


def test_transports_whose_depth_is_not_read(tmp_path):
    """Kombu's other transports may create what they are asked for, so they are not asked."""
    folders = {"data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path)}
    with Connection("filesystem://", transport_options=folders) as connection:
        found = read(connection, "billing", unacked=True, progress_over=1.0)
    why = "the depth of a queue on filesystem is not read: kombu's way of asking could create it"
    assert found.seen[0].ready == Unseen(why, never=True)
    assert found.unacked == Unseen("filesystem does not tell what is unacknowledged", never=True)
    assert list(tmp_path.iterdir()) == []


def test_without_a_broker():
    """A broker that could not be reached makes its queues unseen for that reason."""
    refused = Unseen("connection refused by redis://127.0.0.1:1")
    assert read(refused, "billing") == refused


@pytest.mark.parametrize("driver", ["redis", "amqp", "memory"])
def test_reader_of_each_family(driver):
    """Each broker family has one reader."""
    assert driver in queues.READERS[driver].drivers
