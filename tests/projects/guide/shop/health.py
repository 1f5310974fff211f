import time
from datetime import datetime, timezone

import redis
from celery import current_app

try:
    from prometheus_client import Gauge
except ImportError:
    Gauge = None

QUEUES = ["default", "high-priority", "low-priority"]
QUEUE_LENGTH = Gauge and Gauge("celery_queue_length", "Queue length", ["queue"])


def cache():
    return redis.Redis.from_url(current_app.conf.broker_url)


def update_queue_metrics():
    with current_app.connection() as conn:
        for queue in QUEUES:
            try:
                declared = conn.default_channel.queue_declare(queue=queue, passive=True)
                QUEUE_LENGTH.labels(queue=queue).set(declared.message_count)
            except Exception:
                pass


def check_celery_health():
    try:
        if not current_app.control.ping(timeout=5):
            return {"healthy": False, "error": "nobody answered ping"}
        active = current_app.control.inspect().active()
        if not active:
            return {"healthy": False, "error": "nobody is active"}
        return {"healthy": True, "workers": len(active), "worker_names": list(active)}
    except Exception as e:
        return {"healthy": False, "error": str(e)}


def record_heartbeat():
    cache().set("celery_beat_heartbeat", datetime.now(timezone.utc).isoformat(), ex=120)


def check_beat_health():
    heartbeat = cache().get("celery_beat_heartbeat")
    if not heartbeat:
        return {"healthy": False, "error": "no heartbeat"}
    last = datetime.fromisoformat(heartbeat.decode())
    age = (datetime.now(timezone.utc) - last).seconds
    if age > 120:
        return {"healthy": False, "error": f"heartbeat is {age}s old"}
    return {"healthy": True, "last_heartbeat": heartbeat.decode()}


def inspect_workers():
    inspect = current_app.control.inspect()
    return {
        "active": inspect.active(),
        "reserved": inspect.reserved(),
        "scheduled": inspect.scheduled(),
        "stats": inspect.stats(),
    }


def find_long_running_tasks(threshold_seconds=300):
    now = time.time()
    found = []
    for worker, tasks in (current_app.control.inspect().active() or {}).items():
        for task in tasks:
            started = task.get("time_start")
            if started and now - started > threshold_seconds:
                found.append(
                    {
                        "worker": worker,
                        "task_id": task["id"],
                        "task_name": task["name"],
                        "duration_seconds": int(now - started),
                    }
                )
    return found


def inspect_queues():
    from kombu import Connection

    found = {}
    with Connection(current_app.conf.broker_url) as conn:
        for name in QUEUES:
            try:
                queue = conn.SimpleQueue(name)
                found[name] = {"length": len(queue)}
                queue.close()
            except Exception as e:
                found[name] = {"error": str(e)}
    return found
