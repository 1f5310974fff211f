from datetime import datetime

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
