"""Ordinary tests of a Django project, with pytest-django or without it."""

import os

import pytest

from pytest_celery_health import RunningTask

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")


@pytest.fixture(scope="session", autouse=True)
def _django():
    """What pytest-django does, too, where it is installed."""
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup()


def test_a_packed_order_is_logged(celery_signals):
    from orders.tasks import pack

    recording = celery_signals.run(pack.s("o1"))
    assert [record.message for record in recording.logs if record.logger == "orders.tasks"] == [
        "order o1 is packed"
    ]


def test_the_death_of_a_task_is_logged(celery_drill):
    assert [record for record in celery_drill("raises").logs if record.level == "ERROR"]


def test_what_runs_is_seen(celery_fleet):
    from celery import current_app

    celery_fleet.worker("w1@sim", active=[RunningTask("orders.tasks.pack", running_for=301)])
    assert [task["name"] for tasks in current_app.control.inspect().active().values() for task in tasks] == [
        "orders.tasks.pack"
    ]


def test_the_health_endpoint(celery_fleet):
    from django.test import Client

    assert Client().get("/health/?format=json").status_code == 500
    celery_fleet.worker("w1@sim", queues=["orders"])
    assert Client().get("/health/?format=json").status_code == 200


def test_a_hung_broker_is_unhealthy_in_time(celery_faults):
    from django.test import Client

    with celery_faults.broker_hangs():
        assert Client().get("/health/?format=json").status_code == 500


@pytest.mark.django_db(transaction=True)
def test_checkout_says_that_it_took_no_order(celery_faults):
    from django.test import Client

    with celery_faults.broker_refuses():
        assert Client().post("/checkout/").status_code == 503
    assert Client().post("/checkout/").status_code == 201
