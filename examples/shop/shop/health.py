"""What operators and probes ask: bounded in time, and silence is never health."""

import math
import os
import time
from datetime import datetime, timezone

import redis

from shop.celery import BROKER, QUEUES, app

try:
    from prometheus_client import Gauge
except ImportError:
    Gauge = None

HEARTBEAT_KEY = "celery_beat_heartbeat"
HEARTBEAT_LIMIT = 120
#: Answers end the wait early once this many workers gave one.
EXPECTED_WORKERS = int(os.environ.get("SHOP_WORKERS", "2"))
TIMEOUT = 2
BOUNDS = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}

# Tasks run in prefork children: with PROMETHEUS_MULTIPROC_DIR set, a scrape of any process shows the gauge.
QUEUE_LENGTH = Gauge and Gauge(
    "celery_queue_length", "Ready messages", ["queue"], multiprocess_mode="mostrecent"
)


class NoAnswerError(Exception):
    """No worker answered: there is nothing to conclude from."""


def _connection():
    """A connection of our own, bounded; the app's pool keeps its own timeouts."""
    options = {**app.conf.broker_transport_options, **BOUNDS, "max_retries": 0}
    return app.connection_for_read(connect_timeout=TIMEOUT, transport_options=options)


def _ask(command):
    with _connection() as connection:
        inspect = app.control.inspect(timeout=1, limit=EXPECTED_WORKERS, connection=connection)
        replies = getattr(inspect, command)()
    if not replies:
        raise NoAnswerError(f"no worker answered {command}")
    return replies


def check_celery_health():
    """Whether every queue has a worker. Beat answers ping as a worker does, but knows no queues."""
    try:
        replies = _ask("active_queues")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not health
        return {"healthy": False, "error": f"{type(error).__name__}: {error}"}
    consumed = {queue["name"] for queues in replies.values() for queue in queues}
    orphaned = [name for name in QUEUES if name not in consumed]
    if orphaned:
        return {"healthy": False, "error": f"no worker consumes {', '.join(orphaned)}"}
    return {"healthy": True, "workers": len(replies), "worker_names": sorted(replies)}


def record_heartbeat():
    # Without an expiry: a missing heartbeat and an old one are two different things.
    with redis.Redis.from_url(BROKER, **BOUNDS) as client:
        client.set(HEARTBEAT_KEY, datetime.now(timezone.utc).isoformat())


def check_beat_health():
    """Whether beat's heartbeat is fresh."""
    try:
        with redis.Redis.from_url(BROKER, **BOUNDS) as client:
            heartbeat = client.get(HEARTBEAT_KEY)
    except redis.RedisError as error:
        return {"healthy": False, "error": f"{type(error).__name__}: {error}"}
    return judge_heartbeat(heartbeat and heartbeat.decode(), datetime.now(timezone.utc))


def judge_heartbeat(heartbeat, now):
    if not heartbeat:
        return {"healthy": False, "error": "no heartbeat recorded"}
    try:
        age = (now - datetime.fromisoformat(heartbeat)).total_seconds()
    except (TypeError, ValueError):
        return {"healthy": False, "error": f"heartbeat {heartbeat!r} is not an aware time"}
    if age > HEARTBEAT_LIMIT:
        return {"healthy": False, "error": f"heartbeat is {age:.0f}s old"}
    if age < -2:
        return {"healthy": False, "error": f"heartbeat is {-age:.0f}s in the future"}
    return {"healthy": True, "last_heartbeat": heartbeat}


def find_long_running_tasks(threshold_seconds=300):
    """Tasks that run longer than the threshold, by our clock against the worker's.

    Raises NoAnswerError when no worker answers: silence is no proof that nothing is stuck.
    """
    now = time.time()
    return [
        {
            "worker": worker,
            "task_id": task["id"],
            "task_name": task["name"],
            "duration_seconds": int(now - task["time_start"]),
        }
        for worker, tasks in _ask("active").items()
        for task in tasks
        if task.get("time_start") and now - task["time_start"] > threshold_seconds
    ]


def inspect_queues():
    """Each queue's ready messages, over all priorities. Looking creates no queue."""
    with _connection() as connection:
        # Bounded, while channel() alone would try a broker that hangs again and again.
        assert connection.default_channel
        return {name: _look_at(connection, name) for name in QUEUES}


def _look_at(connection, name):
    # A channel each: AMQP closes the channel of a passive declare that finds nothing.
    with connection.channel() as channel:
        try:
            return {"length": channel.queue_declare(queue=name, passive=True).message_count}
        except connection.channel_errors as error:
            # An int on AMQP, a str on Redis.
            if str(getattr(error, "reply_code", "")) != "404":
                return {"error": f"{type(error).__name__}: {error}"}
    # Redis keeps no key for an empty queue; elsewhere it is missing.
    return {"length": 0} if connection.transport.driver_type == "redis" else {"error": "no such queue"}


def update_queue_metrics():
    if QUEUE_LENGTH is None:
        return
    try:
        queues = inspect_queues()
    except Exception:
        # What was true when the broker was last seen would go on looking fresh.
        for name in QUEUES:
            QUEUE_LENGTH.labels(queue=name).set(math.nan)
        raise
    for name, seen in queues.items():
        QUEUE_LENGTH.labels(queue=name).set(seen.get("length", math.nan))
