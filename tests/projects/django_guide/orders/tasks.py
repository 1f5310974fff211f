import logging

from celery import shared_task
from django.core.cache import cache
from django.utils import timezone

logger = logging.getLogger("celery.task")


@shared_task
def pack(order_id):
    logger.info("order %s is packed", order_id)
    return order_id


@shared_task
def beat_heartbeat():
    cache.set("celery_beat_heartbeat", timezone.now().isoformat(), timeout=120)
