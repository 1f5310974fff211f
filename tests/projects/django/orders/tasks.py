from celery import shared_task
from django.core.cache import cache
from django.utils import timezone


@shared_task
def pack(order_id):
    return order_id


@shared_task
def heartbeat():
    cache.set("celery_beat_heartbeat", timezone.now().isoformat(), timeout=None)
