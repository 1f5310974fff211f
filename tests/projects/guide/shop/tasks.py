import logging

import requests
from celery import shared_task

from shop import health

try:
    import structlog
except ImportError:
    structlog = None

logger = logging.getLogger("celery.task")
events = structlog and structlog.get_logger()


class CardDeclined(Exception):
    pass


@shared_task(bind=True)
def process_order(self, order_id):
    log = events.bind(task_id=self.request.id, task_name=self.name, order_id=order_id)
    log.info("starting_order_processing")
    try:
        result = {"order": order_id, "packed": True}
        log.info("order_processed", result=result)
        return result
    except Exception as e:
        log.exception("order_processing_failed", error=str(e))
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
