import time
from datetime import datetime

from celery import current_app
from django.core.cache import cache
from django.utils import timezone


def check_beat_health():
    heartbeat = cache.get("celery_beat_heartbeat")
    if not heartbeat:
        return {"healthy": False, "error": "no heartbeat"}
    age = (timezone.now() - datetime.fromisoformat(heartbeat)).seconds
    if age > 120:
        return {"healthy": False, "error": f"heartbeat is {age}s old"}
    return {"healthy": True, "last_heartbeat": heartbeat}


def last_heartbeat():
    heartbeat = cache.get("celery_beat_heartbeat")
    return heartbeat and datetime.fromisoformat(heartbeat)


def find_long_running_tasks(threshold_seconds=300):
    now = time.time()
    found = []
    for worker, tasks in (current_app.control.inspect().active() or {}).items():
        for task in tasks:
            started = task.get("time_start")
            if started and now - started > threshold_seconds:
                found.append({"worker": worker, "task_id": task["id"], "task_name": task["name"]})
    return found
