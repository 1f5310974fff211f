from datetime import timedelta

from django.core.cache import cache
from django.utils import timezone
from django.utils.dateparse import parse_datetime

LIMIT = timedelta(seconds=120)


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
