"""What the shop does in the background."""

import logging

import requests

from shop import health
from shop.celery import app

logger = logging.getLogger(__name__)


class CardDeclined(Exception):
    """The bank said no."""


@app.task
def process_order(order_id):
    logger.info("order %s is packed", order_id)
    return {"order": order_id, "packed": True}


@app.task
def process_payment(order_id, card):
    if card == "declined":
        raise CardDeclined(f"order {order_id}: declined")
    return {"order": order_id, "paid": True}


@app.task
def send_critical_notification(text):
    logger.warning("to the operators: %s", text)


@app.task(autoretry_for=(requests.RequestException,), max_retries=3, retry_backoff=True)
def import_stock(url):
    response = requests.get(url, timeout=(2, 10))
    response.raise_for_status()
    return len(response.json())


@app.task(ignore_result=True)
def nightly_report():
    logger.info("the day's report is written")


@app.task(ignore_result=True)
def heartbeat():
    """Proves that beat sent this and that a worker ran it."""
    health.record_heartbeat()


@app.task(ignore_result=True)
def collect_queue_metrics():
    health.update_queue_metrics()
