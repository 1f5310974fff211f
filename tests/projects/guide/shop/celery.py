import logging.config
import os

from celery import Celery
from celery.schedules import crontab
from kombu import Queue

from shop.log import LOGGING

BROKER = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

logging.config.dictConfig(LOGGING)

app = Celery("shop", broker=BROKER, backend=BROKER)
app.conf.update(
    imports=["shop.tasks", "shop.signals"],
    task_default_queue="default",
    task_queues=[Queue("default"), Queue("high-priority"), Queue("low-priority")],
    task_routes={
        "shop.tasks.process_payment": {"queue": "high-priority"},
        "shop.tasks.send_critical_notification": {"queue": "high-priority"},
        "shop.tasks.nightly_report": {"queue": "low-priority"},
    },
    beat_schedule={
        "heartbeat": {"task": "shop.tasks.heartbeat", "schedule": 30.0},
        "collect-queue-metrics": {"task": "shop.tasks.collect_queue_metrics", "schedule": 60.0},
        "nightly-report": {"task": "shop.tasks.nightly_report", "schedule": crontab(hour=2, minute=30)},
    },
)
