"""Handlers that are there before the worker sets up logging, and stay."""

import logging
import logging.config
import os

from celery import Celery
from celery.utils.log import get_task_logger

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"text": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
        "handlers": {
            "lines": {
                "class": "logging.handlers.WatchedFileHandler",
                "filename": os.environ.get("LOG_FILE", os.devnull),
                "formatter": "text",
            }
        },
        "root": {"handlers": ["lines"], "level": "INFO"},
    }
)

logger = logging.getLogger("shop.orders")
task_logger = get_task_logger("shop.tasks")
app = Celery("shop", broker="redis://localhost:6379/0")
app.conf.worker_hijack_root_logger = False


@app.task(name="shop.pack")
def pack(order_id):
    logger.info("order %s is packed", order_id)
    task_logger.info("order %s is packed", order_id)
