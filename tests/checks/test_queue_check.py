from __future__ import annotations

import re

import pytest

from pytest_celery_health import (
    Progress,
    Queue,
    QueueDepth,
    Queues,
    Snapshot,
    Unacked,
    Unseen,
    Worker,
    Workers,
    judge,
)

W1, W2 = Worker("w1", queues=("billing", "invoices")), Worker("w2", queues=("billing",))
BOTH = Workers((W1, W2))


def verdict(check, *facts, workers=BOTH, **unseen):
    return judge(check, Snapshot(workers, *facts, **unseen))


@pytest.mark.parametrize(
    ("ready", "healthy", "message"),
    [
        (999, True, "billing holds 999 ready messages; wanted below 1,000 (consumed by w1, w2)"),
        (1000, False, "billing holds 1,000 ready messages; wanted below 1,000 (consumed by w1, w2)"),
        (1204, False, "billing holds 1,204 ready messages; wanted below 1,000 (consumed by w1, w2)"),
        (1, True, "billing holds 1 ready message; wanted below 1,000 (consumed by w1, w2)"),
        (0, True, "billing holds 0 ready messages; wanted below 1,000 (consumed by w1, w2)"),
    ],
)
def test_ready_below(ready, healthy, message):
    """Fewer than the threshold is healthy, the threshold itself is not."""
    found = verdict(QueueDepth("billing", ready_below=1000), Queue("billing", ready=ready))
    assert (found.healthy, found.message()) == (healthy, message)


def test_who_consumes_is_cut_short():
    """A message names three consumers and counts the rest."""
    workers = Workers(tuple(Worker(f"w{n}", queues=("billing",)) for n in range(5)))
    found = verdict(QueueDepth("billing", ready_below=1), Queue("billing", ready=1), workers=workers)
    assert "(consumed by w0, w1, w2 and 2 more)" in found.message()


def test_missing_queue_and_the_nearest_name():
    """A queue that the broker knows to be missing is unhealthy, and its message names the nearest one."""
    missing = Queues((Queue("biling", ready=0, exists=False),), frozenset({"billing", "invoices"}))
    found = verdict(QueueDepth("biling"), missing)
    assert found.unhealthy
    assert found.message() == "biling does not exist; wanted an existing queue (did you mean billing?)"
    far = Queues((Queue("dlq", ready=0, exists=False),), frozenset({"billing", "invoices"}))
    assert verdict(QueueDepth("dlq"), far).message() == (
        "dlq does not exist; wanted an existing queue (known queues: billing, invoices)"
    )
    alone = Queues((Queue("dlq", ready=0, exists=False),))
    assert verdict(QueueDepth("dlq"), alone).message() == "dlq does not exist; wanted an existing queue"


def test_empty_queue_that_may_not_exist_is_unknown():
    """Where empty and missing look the same, zero is no answer."""
    doubtful = Queue("biling", ready=0, exists=Unseen("it is empty or does not exist"))
    found = verdict(QueueDepth("biling", ready_below=9), Queues((doubtful,), frozenset({"billing"})))
    assert found.message() == "cannot tell: biling: it is empty or does not exist (did you mean billing?)"


def test_unseen_depth_is_unknown():
    """A depth that could not be read is never zero; `never` tells when the broker cannot show it at all."""
    sqs = Unseen("the depth of a queue on sqs is not read", never=True)
    found = verdict(QueueDepth("billing", ready_below=9), Queue("billing", ready=sqs))
    assert (found.unknown, found.never) == (True, True)
    assert found.message() == "cannot tell: billing: the depth of a queue on sqs is not read"
    nothing = judge(QueueDepth("billing"), Snapshot(unseen={Queues: Unseen("connection refused")}))
    assert nothing.message() == "cannot tell: connection refused (billing)"


def test_backlog_without_consumer():
    """A backlog that nobody consumes is unhealthy unless the contract allows it; an empty queue is not."""
    orphan = Queue("dlq", ready=3)
    assert verdict(QueueDepth("dlq"), orphan).message() == (
        "dlq holds 3 ready messages that nobody consumes; wanted a consumer"
        " (start a worker with -Q dlq, or allow it with consumers_at_least = 0)"
    )
    assert verdict(QueueDepth("dlq"), Queue("dlq", ready=0)).healthy
    assert verdict(QueueDepth("dlq", consumers_at_least=0, ready_below=9), orphan).healthy


def test_consumers_at_least():
    """The broker's own count wins over the workers' answers, where there is one."""
    check = QueueDepth("billing", consumers_at_least=3)
    assert verdict(check, Queue("billing", ready=0)).message() == (
        "billing has 2 consumers; wanted at least 3 (consumed by w1, w2)"
    )
    assert verdict(check, Queue("billing", ready=0, consumers=3)).healthy
    alien = verdict(check, Queue("billing", ready=0, consumers=1), workers=Workers())
    assert alien.message() == "billing has 1 consumer; wanted at least 3 (1 consumer by the broker's count)"
    none = verdict(check, Queue("dlq", ready=0), Queue("billing", ready=0), workers=Workers())
    assert none.message() == "billing has no consumer; wanted at least 3"


def test_consumers_at_least_0_alone():
    """A row that allows a backlog without consumers, and wants no more, holds when the queue exists."""
    check = QueueDepth("dlq", consumers_at_least=0)
    assert verdict(check, Queue("dlq", ready=3, exists=True)).message() == (
        "dlq holds 3 ready messages (no worker consumes it)"
    )
    assert verdict(check, Queue("dlq", ready=0, exists=True)).healthy
    assert verdict(check, Queue("dlq", ready=0, exists=False)).unhealthy


@pytest.mark.parametrize(
    ("wanted", "subscribed", "status", "message"),
    [
        (3, 3, "unknown", "cannot tell: billing has 2 consumers, and 1 mailbox is silent; wanted at least 3"),
        (4, 3, "unhealthy", "billing has 2 consumers; wanted at least 4"),
        (4, 4, "unknown", "cannot tell: billing has 2 consumers, and 2 mailboxes are silent; wanted"),
        (2, 3, "healthy", ""),
    ],
)
def test_consumers_that_may_be_silent(wanted, subscribed, status, message):
    """A mailbox that is silent may be of one more consumer: the count lies between."""
    fleet = Workers((W1, W2), subscribed=subscribed)
    check = QueueDepth("billing", consumers_at_least=wanted)
    found = verdict(check, Queue("billing", ready=0), workers=fleet)
    assert found.status == status
    assert found.healthy or found.message().startswith(message)
    counted = verdict(check, Queue("billing", ready=0, consumers=2), workers=fleet)
    assert counted.unhealthy is (wanted > 2)


def test_backlog_whose_consumer_may_be_silent():
    """Nobody is seen to consume it, which a backlog that was watched decides."""
    fleet = Workers(subscribed=1)
    backlog = Queue("billing", ready=8)
    assert verdict(QueueDepth("billing"), backlog, workers=fleet).message() == (
        "cannot tell: billing holds 8 ready messages that nobody is seen to consume, and 1 mailbox is silent"
        " (moves_within tells whether they move)"
    )
    check = QueueDepth("billing", moves_within="10s")
    blind = Unseen("not every mailbox answered")
    still = verdict(check, progress(8, 8, False, blind), workers=fleet)
    assert still.message() == (
        "billing stood still for 10 s with 8 ready messages; wanted progress within 10 s"
    )
    assert verdict(check, progress(8, 7, True, blind), workers=fleet).healthy
    unwatched = verdict(check, backlog, workers=fleet)
    assert unwatched.unknown


def test_unknown_consumers():
    """Workers that did not tell their queues make a backlog unknown; an empty queue needs none."""
    blind = Unseen("nobody answered active_queues")
    backlog = verdict(
        QueueDepth("billing"), Queue("billing", ready=3), workers=Workers((Worker("w1", queues=blind),))
    )
    assert backlog.message() == "cannot tell: billing's consumers: nobody answered active_queues"
    assert verdict(
        QueueDepth("billing"), Queue("billing", ready=0), workers=Workers((Worker("w", queues=blind),))
    ).healthy


def progress(before, after, moved, accepted):
    return Queue("billing", ready=before, progress=Progress(10.0, before, after, moved, accepted))


@pytest.mark.parametrize(
    ("queue", "status", "message"),
    [
        (
            progress(40, 41, False, 0),
            "unhealthy",
            "billing stood still for 10 s with 41 ready messages; wanted progress within 10 s"
            " (its workers accepted no task meanwhile)",
        ),
        (
            progress(1, 1, False, Unseen("w1 is silent")),
            "unhealthy",
            "billing stood still for 10 s with 1 ready message; wanted progress within 10 s",
        ),
        (
            progress(40, 40, None, Unseen("w1 is silent")),
            "unknown",
            "cannot tell: billing's progress: w1 is silent",
        ),
        (progress(40, 39, None, 0), "healthy", ""),
        (progress(40, 60, True, 0), "healthy", ""),
        (progress(40, 60, None, 7), "healthy", ""),
        (
            Queue("billing", ready=40, progress=Unseen("the deadline was over")),
            "unknown",
            "cannot tell: billing's progress: the deadline was over",
        ),
        (Queue("billing", ready=0), "healthy", ""),
    ],
)
def test_moves_within(queue, status, message):
    """A backlog moves when it shrinks, when its oldest message goes, or when its workers accept tasks."""
    found = verdict(QueueDepth("billing", moves_within="10s"), queue)
    assert found.status == status
    assert found.healthy or found.message() == message


@pytest.mark.parametrize(
    ("unacked", "limit", "status", "message"),
    [
        (Unacked(7, 59.0, 3600.0), "1min", "healthy", ""),
        (
            Unacked(7, 61.0, 3600.0),
            "1min",
            "unhealthy",
            "a message is 61 s old and unacknowledged, the oldest of 7; wanted below 1 min"
            " (of the whole Redis database; past visibility_timeout it is delivered again)",
        ),
        (
            Unacked(1, 3600.0, 3600.0),
            "visibility_timeout",
            "unhealthy",
            "a message is 1 h old and unacknowledged; wanted below 1 h"
            " (of the whole Redis database; past visibility_timeout it is delivered again)",
        ),
        (Unacked(1, 3599.0, 3600.0), "visibility_timeout", "healthy", ""),
        (Unacked(0, None, 3600.0), "visibility_timeout", "healthy", ""),
        (
            Unseen("AMQP does not tell", never=True),
            "1min",
            "unknown",
            "cannot tell: unacknowledged messages: AMQP does not tell",
        ),
    ],
)
def test_oldest_unacked_below(unacked, limit, status, message):
    """What workers hold too long is delivered again at the visibility timeout, and its task runs twice."""
    found = verdict(
        QueueDepth("billing", oldest_unacked_below=limit),
        Queues((Queue("billing", ready=0),), unacked=unacked),
    )
    assert found.status == status
    assert found.healthy or found.message() == message


def test_patterns():
    """A pattern stands for each queue that it matches, and for none it is unknown."""
    seen = Queues(
        (Queue("billing", ready=1), Queue("billing.eu", ready=9), Queue("mail", ready=9)), frozenset({"mail"})
    )
    workers = Workers((Worker("w1", queues=("billing", "billing.eu", "mail")),))
    check = QueueDepth(["billing*"], ready_below=5)
    assert verdict(check, seen, workers=workers).message() == (
        "billing.eu holds 9 ready messages; wanted below 5 (consumed by w1)"
    )
    nothing = verdict(QueueDepth("fax*"), seen, workers=workers)
    assert nothing.message() == "cannot tell: no queue matches fax* (known queues: mail)"


def test_more_bad_queues_are_counted():
    """The first finding is the message, the others are counted."""
    found = verdict(
        QueueDepth(("a", "b"), ready_below=1, consumers_at_least=0), Queue("a", ready=1), Queue("b", ready=2)
    )
    assert found.message() == "a holds 1 ready message; wanted below 1 (no worker consumes it) (and 1 more)"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"queues": ()}, "queues names no queue; write a name, a pattern or a list of them"),
        ({"queues": ""}, "queues names no queue; write a name, a pattern or a list of them"),
        ({"ready_below": 0}, "ready_below is 0, which no queue can meet; write 1 or more"),
        ({"consumers_at_least": -1}, "consumers_at_least is -1; write 0 or more"),
        ({"moves_within": 0}, "moves_within is 0; a backlog needs time to move"),
        ({"moves_within": -1}, "moves_within: -1 is not a duration; it must be zero or more, and finite"),
        ({"oldest_unacked_below": 0}, "oldest_unacked_below is 0, which no message can meet"),
        (
            {"oldest_unacked_below": "visibility"},
            'oldest_unacked_below is "visibility"; did you mean "visibility_timeout"?',
        ),
    ],
)
def test_impossible_values(fields, message):
    """What no queue can meet is refused when the check is made."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        QueueDepth(**{"queues": "billing", **fields})
