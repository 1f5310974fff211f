import logging

from celery import shared_task

logger = logging.getLogger(__name__)


@shared_task
def pack(order_id):
    logger.info("order %s is packed", order_id)
