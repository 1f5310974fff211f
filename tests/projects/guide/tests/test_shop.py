import pytest
from shop.tasks import process_order

from pytest_celery_health import BeatFresh, QueueDepth, WorkersAnswer


@pytest.mark.celery_health(WorkersAnswer(at_least=2), QueueDepth("default", ready_below=1000))
def test_ready_for_traffic(celery_health):
    celery_health.expect(BeatFresh(within="2min"))


def test_order_is_packed():
    assert process_order.apply(("o1",)).get()["packed"]
