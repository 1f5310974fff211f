"""What is written into a project: health checks of queues, of beat and of stuck tasks, right and wrong."""

# ruff: noqa: BLE001, SIM105

import math
import os
import sys
import time
import urllib.request
from datetime import datetime, timezone

import httpx
import redis
import requests
from celery import Celery
from kombu import Queue
from prometheus_client import CollectorRegistry, Gauge

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
#: How a module is kept from being imported.
sys.modules["checks_in_states.nowhere"] = None
OWN = CollectorRegistry()
OWN_TOTAL = Gauge("queue_ready_own", "ready", ["queue"], registry=OWN)
HIDDEN = {"registry": CollectorRegistry()}
HIDDEN_TOTAL = Gauge("queue_hidden", "ready", ["queue"], registry=HIDDEN["registry"])
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


# Workers.


def tasks_are_registered():
    with connection() as own:
        told = app.control.inspect(timeout=0.5, limit=1, connection=own).registered() or {}
    return any("shop.heartbeat" in tasks for tasks in told.values())


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
    for_each_queue(TOTAL)


def sets_gauge_of_its_own_registry():
    for_each_queue(OWN_TOTAL)


def sets_gauge_that_nobody_finds():
    for_each_queue(HIDDEN_TOTAL)


def for_each_queue(gauge):
    try:
        found = lengths()
    except Exception:
        for queue in ("orders", "mail"):
            gauge.labels(queue).set(math.nan)
        raise
    for queue, length in found.items():
        gauge.labels(queue).set(length)


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


def last_beat():
    with client() as connected:
        seen = connected.get(KEY)
    return seen and datetime.fromisoformat(seen.decode())


def last_of_another_life():
    return datetime.now(timezone.utc)


# Hosts.

API, SLACK = "https://api.example.com/v1/status", "https://hooks.slack.com/services/x"


def ready():
    try:
        answer = httpx.get(API, timeout=1)
        return {"healthy": answer.status_code == 200 and answer.json()["open"]}
    except Exception as error:
        return {"healthy": False, "error": type(error).__name__}


async def ready_async():
    try:
        async with httpx.AsyncClient(timeout=1) as session:
            answer = await session.get(API)
        return {"healthy": answer.status_code == 200 and answer.json()["open"]}
    except httpx.HTTPError as error:
        return {"healthy": False, "error": type(error).__name__}


def ready_whatever_happens():
    try:
        httpx.get(API, timeout=1)
    except Exception:
        pass
    return {"healthy": True}


def application(environ, start_response):
    try:
        with urllib.request.urlopen(API, timeout=1) as answer:
            well = answer.status == 200
    except OSError:
        well = False
    start_response("200 OK" if well else "503 Service Unavailable", [])
    return [b""]


def tells_slack():
    try:
        requests.post(SLACK, json={"text": "checked"}, timeout=0.5)
    except requests.RequestException:
        pass
    return True


def waits_for_slack():
    requests.post(SLACK, json={"text": "checked"})
    return True


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
