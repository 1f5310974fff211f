"""What is written into a project: health checks of queues, of beat and of stuck tasks, right and wrong."""

# ruff: noqa: BLE001

import math
import os
import time
from datetime import datetime, timezone

import redis
from celery import Celery
from kombu import Queue
from prometheus_client import Gauge

BROKER = os.environ.get("BROKER", "redis://production.example:6379/0")
app = Celery("shop", broker=BROKER)
app.conf.update(
    task_default_queue="orders",
    task_queues=[Queue("orders", routing_key="orders", max_priority=9), Queue("mail", routing_key="mail")],
    beat_schedule={"heartbeat": {"task": "shop.heartbeat", "schedule": 30.0}},
)
BOUNDS = {"socket_timeout": 1, "socket_connect_timeout": 1}
KEY = "beat-seen"
TOTAL = Gauge("queue_ready", "ready", ["queue"])
STALE = Gauge("queue_stale", "ready", ["queue"])


@app.task(name="shop.heartbeat", ignore_result=True)
def heartbeat():
    with client() as connected:
        connected.set(KEY, datetime.now(timezone.utc).isoformat())


def client():
    return redis.Redis.from_url(BROKER, **BOUNDS)


def connection():
    options = {**BOUNDS, "max_retries": 0}
    return app.connection_for_read(connect_timeout=1, transport_options=options)


# Queues.


def lengths():
    with connection() as own:
        channel = own.default_channel
        return {queue: channel._size(queue) for queue in ("orders", "mail")}


def one_priority_only():
    with client() as connected:
        return {queue: {"length": connected.llen(queue)} for queue in ("orders", "mail")}


def below_a_thousand():
    try:
        return {"healthy": all(length <= 1000 for length in lengths().values())}
    except Exception as error:
        return {"healthy": False, "error": str(error)}


def creates_queues():
    with connection() as own:
        assert own.default_channel
        for name in ("orders", "mail"):
            own.SimpleQueue(name).close()
    return lengths()


# A gauge.


def sets_gauge():
    try:
        found = lengths()
    except Exception:
        for queue in ("orders", "mail"):
            TOTAL.labels(queue).set(math.nan)
        raise
    for queue, length in found.items():
        TOTAL.labels(queue).set(length)


def leaves_gauge():
    try:
        for queue, length in lengths().items():
            if length:
                STALE.labels(queue).set(length)
    except Exception:
        pass


# Beat.


def beat():
    try:
        with client() as connected:
            seen = connected.get(KEY)
        age = (datetime.now(timezone.utc) - datetime.fromisoformat(seen.decode())).total_seconds()
    except Exception:
        return False
    return -5 < age <= 120


def beat_by_seconds():
    try:
        with client() as connected:
            seen = connected.get(KEY)
        age = (datetime.now(timezone.utc) - datetime.fromisoformat(seen.decode())).seconds
    except Exception:
        return False
    return age <= 120


# Stuck tasks.


def stuck(seconds):
    now = time.time()
    with connection() as own:
        replies = app.control.inspect(timeout=0.5, limit=1, connection=own).active()
    if not replies:
        raise LookupError("no worker answered")
    return [task["id"] for tasks in replies.values() for task in tasks if now - task["time_start"] > seconds]


def stuck_or_silent(seconds):
    try:
        return stuck(seconds)
    except Exception:
        return []


# Workers.


def consumed():
    try:
        with connection() as own:
            replies = app.control.inspect(timeout=0.5, limit=1, connection=own).active_queues()
        return {"orders", "mail"} <= {
            queue["name"] for queues in (replies or {}).values() for queue in queues
        }
    except Exception:
        return False


def ping():
    try:
        with connection() as own:
            return bool(app.control.ping(timeout=0.5, limit=1, connection=own))
    except Exception:
        return False


def alive():
    return {"status": "ok"}
