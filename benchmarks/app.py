"""The app that is looked at. Where its broker is, and under which names, its environment says."""

from __future__ import annotations

import os

from celery import Celery
from kombu import Queue

BROKER = "BENCHMARK_BROKER"
NAME = "BENCHMARK_NAME"


def make(broker: str, name: str) -> Celery:
    """An app whose queue and exchanges nobody else has: the broker may be shared."""
    app = Celery("benchmark", broker=broker, set_as_current=False)
    app.conf.update(
        control_exchange=name,
        event_exchange=f"{name}.ev",
        task_default_queue=name,
        task_queues=[Queue(name, auto_delete=True)],
        broker_connection_retry_on_startup=True,
        beat_schedule={"every minute": {"task": "shop.task1", "schedule": 60.0}},
    )
    for number in range(20):
        app.task(name=f"shop.task{number}")(_nothing)
    return app


def _nothing() -> None:
    """Nobody calls it."""


app = make(os.environ.get(BROKER, "memory://"), os.environ.get(NAME, "benchmark"))
