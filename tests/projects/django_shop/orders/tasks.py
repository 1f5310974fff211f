import logging

from celery import shared_task
from django.core.cache import cache
from django.utils import timezone

logger = logging.getLogger(__name__)


@shared_task(ignore_result=True)
def pack(order_id):
    """It may be run twice: a packed order stays packed."""
    logger.info("order %s is packed", order_id)


@shared_task(ignore_result=True)
def beat_heartbeat():
    # For ever: one that expired says only that there is none, and not how old it is.
    cache.set("celery_beat_heartbeat", timezone.now().isoformat(), timeout=None)
