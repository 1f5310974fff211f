"""Celery's own logging, and its loggers of tasks."""

from celery import Celery
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)
app = Celery("shop", broker="redis://localhost:6379/0")


@app.task(name="shop.pack")
def pack(order_id):
    logger.info("order %s is packed", order_id)
    print("printed, too")  # noqa: T201
