import logging

import requests
from celery import shared_task

from shop import health

logger = logging.getLogger("celery.task")


class CardDeclined(Exception):
    pass


@shared_task(bind=True)
def process_order(self, order_id):
    logger.info("order %s starts in %s", order_id, self.request.id)
    try:
        result = {"order": order_id, "packed": True}
        logger.info("order %s is done", order_id)
        return result
    except Exception as e:
        logger.exception("order %s failed: %s", order_id, e)
        raise


@shared_task
def process_payment(order_id, card):
    if card == "declined":
        raise CardDeclined(f"order {order_id}: declined")
    return {"order": order_id, "paid": True}


@shared_task
def send_critical_notification(text):
    logger.warning(text)


@shared_task(bind=True)
def import_stock(self, url):
    try:
        return len(requests.get(url).json())
    except Exception as e:
        logger.exception("stock import failed: %s", e)
        raise self.retry(exc=e)


@shared_task
def nightly_report():
    logger.info("the day's report is written")


@shared_task
def heartbeat():
    health.record_heartbeat()


@shared_task
def collect_queue_metrics():
    health.update_queue_metrics()
