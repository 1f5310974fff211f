import pytest
from acme_checks import NoPoison

from pytest_celery_health import Queue, Snapshot, Unseen, judge


def test_an_empty_queue_is_healthy():
    assert judge(NoPoison("dlq"), Snapshot(Queue("dlq", ready=0))).healthy


def test_poison_is_unhealthy_and_counted():
    verdict = judge(NoPoison("dlq"), Snapshot(Queue("dlq", ready=3)))
    assert verdict.unhealthy
    assert verdict.message().startswith("dlq holds 3 poisoned messages; wanted at most 0")


def test_a_misspelt_queue_is_not_healthy():
    assert judge(NoPoison("dql"), Snapshot(Queue("dql", ready=0, exists=False))).unhealthy


def test_what_was_not_seen_is_unknown():
    assert judge(NoPoison("dlq"), Snapshot(Queue("dlq", ready=Unseen("no answer")))).unknown


def test_an_impossible_threshold_is_refused():
    with pytest.raises(ValueError, match="at_most is -1"):
        NoPoison("dlq", at_most=-1)
