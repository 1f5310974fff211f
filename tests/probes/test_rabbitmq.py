"""The same on RabbitMQ, where a queue that is looked at by declaring it is there afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import IMPOSSIBLE
from pytest_celery_health import ProbeTells, Verdict
from tests.probes.conftest import Lab, bad

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

APP = """
from celery import Celery
from kombu import Queue

app = Celery("shop", broker="amqp://production.example//")
app.conf.update(
    task_default_queue="orders",
    task_queues=[Queue("orders", routing_key="orders", max_priority=9), Queue("mail", routing_key="mail")],
)

def connection():
    bounds = {"read_timeout": 1, "write_timeout": 1, "max_retries": 0}
    return app.connection_for_read(connect_timeout=1, transport_options=bounds)

def lengths():
    found = {}
    with connection() as own:
        assert own.default_channel
        for queue in ("orders", "mail"):
            with own.channel() as channel:
                found[queue] = channel.queue_declare(queue=queue, passive=True).message_count
    return found

def creates():
    with connection() as own:
        assert own.default_channel
        own.SimpleQueue("mispelt").close()
    return lengths()

def consumed():
    try:
        with connection() as own:
            replies = app.control.inspect(timeout=1, limit=1, connection=own).active_queues()
        return {"orders", "mail"} <= {queue["name"] for each in (replies or {}).values() for queue in each}
    except Exception:
        return False
"""
CHECKS = {
    "lengths": ProbeTells(call="shop:lengths", worlds="queue_check", answers_within=20),
    "creates": ProbeTells(call="shop:creates", worlds="queue_check", answers_within=20),
    "workers": ProbeTells(call="shop:consumed", worlds="worker_check", answers_within=20),
}


@pytest.fixture(scope="module")
def verdicts(lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    if not shutil.which("rabbitmq-server"):
        pytest.skip(f"{IMPOSSIBLE}no rabbitmq-server on the PATH")
    root: Path = tmp_path_factory.mktemp("rabbit")
    (root / "shop.py").write_text(APP)
    made = lab("shop:app", root, broker="rabbitmq-server", workers=1, concurrency=1, start_within=90.0)
    return made.verdicts(CHECKS)


@pytest.mark.parametrize("name", ["lengths", "workers"])
def test_green_in_every_world(verdicts: dict[str, Verdict], name: str) -> None:
    assert bad(verdicts[name]) == []


def test_a_queue_that_is_left_behind(verdicts: dict[str, Verdict]) -> None:
    assert bad(verdicts["creates"]) == [
        "creates leaves the queue mispelt in a healthy world; wanted nothing left behind",
        "creates leaves the queue mispelt in new_broker; wanted nothing left behind",
    ]
