from django.core.cache import cache
from django.utils.dateparse import parse_datetime


def last_heartbeat():
    """When beat was last seen; None is never."""
    heartbeat = cache.get("celery_beat_heartbeat")
    return heartbeat and parse_datetime(heartbeat)
