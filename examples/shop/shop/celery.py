"""The shop's Celery app: `celery -A shop.celery worker`, `celery -A shop.celery beat`."""

import os

from celery import Celery
from celery.schedules import crontab
from kombu import Queue

BROKER = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
QUEUES = ("default", "high-priority", "low-priority")

app = Celery("shop", broker=BROKER, backend=BROKER)
app.conf.update(
    imports=["shop.tasks", "shop.signals", "shop.log"],
    task_default_queue="default",
    # Without a routing key of its own, each queue would be bound with the default queue's.
    task_queues=[Queue(name, routing_key=name) for name in QUEUES],
    task_routes={
        "shop.tasks.heartbeat": {"queue": "high-priority"},
        "shop.tasks.process_payment": {"queue": "high-priority"},
        "shop.tasks.send_critical_notification": {"queue": "high-priority"},
        "shop.tasks.nightly_report": {"queue": "low-priority"},
    },
    task_soft_time_limit=240,
    task_time_limit=300,
    result_expires=3600,
    broker_connection_retry_on_startup=True,
    beat_schedule={
        # A heartbeat that waited in a backlog says nothing about beat: it expires.
        "heartbeat": {"task": "shop.tasks.heartbeat", "schedule": 30.0, "options": {"expires": 60}},
        "collect-queue-metrics": {
            "task": "shop.tasks.collect_queue_metrics",
            "schedule": 60.0,
            "options": {"expires": 60},
        },
        "nightly-report": {"task": "shop.tasks.nightly_report", "schedule": crontab(hour=2, minute=30)},
    },
)
