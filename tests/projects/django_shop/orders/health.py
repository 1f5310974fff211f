import time
from datetime import timedelta

from celery import current_app
from django.core.cache import cache
from django.utils import timezone
from django.utils.dateparse import parse_datetime

LIMIT = timedelta(seconds=120)
BOUNDS = {"socket_timeout": 2, "socket_connect_timeout": 2, "max_retries": 0}


def ask_workers(command):
    """Their replies. On a connection of its own: the app's waits for ever."""
    app = current_app
    options = {**app.conf.broker_transport_options, **BOUNDS}
    with app.connection_for_read(connect_timeout=2, transport_options=options) as connection:
        return getattr(app.control.inspect(timeout=1, connection=connection), command)() or {}


def last_heartbeat():
    """When beat was last seen; None is never."""
    heartbeat = cache.get("celery_beat_heartbeat")
    return heartbeat and parse_datetime(heartbeat)


def check_beat_health():
    """Whether beat sent a heartbeat lately, and a worker ran it."""
    try:
        last = last_heartbeat()
    except Exception as error:  # noqa: BLE001 - of whatever client the cache has
        return {"healthy": False, "error": type(error).__name__}
    if last is None:
        return {"healthy": False, "error": "no heartbeat"}
    age = timezone.now() - last
    if not timedelta(seconds=-5) <= age <= LIMIT:
        return {"healthy": False, "error": f"heartbeat is {age.total_seconds():.0f} s old"}
    return {"healthy": True, "last_heartbeat": last.isoformat()}


def find_long_running_tasks(threshold_seconds=300):
    """Tasks that run for longer. Raises RuntimeError when nobody answers: silence is no proof."""
    replies, now = ask_workers("active"), time.time()
    if not replies:
        raise RuntimeError("no worker answered")
    return [
        {"worker": worker, "task_id": task["id"], "task_name": task["name"]}
        for worker, tasks in replies.items()
        for task in tasks
        if task["time_start"] and now - task["time_start"] > threshold_seconds
    ]
