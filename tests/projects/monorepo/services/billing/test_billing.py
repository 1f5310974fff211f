import pytest

from pytest_celery_health import WorkersAnswer


@pytest.mark.celery_health(WorkersAnswer(tasks=["billing.invoice"]))
def test_ready_for_traffic():
    pass
