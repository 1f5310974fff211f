"""Lines of JSON from Celery's own handlers; a filter brings what a task's prerun has set."""

import json
import logging
import socket
from contextvars import ContextVar

from celery import Celery, signals

logger = logging.getLogger("shop")
app = Celery("shop", broker="redis://localhost:6379/0")
task_of_now = ContextVar("task_of_now", default=None)


class Context(logging.Filter):
    def filter(self, record):
        record.context = {**(task_of_now.get() or {}), "worker": socket.gethostname()}
        return True


class JsonLines(logging.Formatter):
    def format(self, record):
        line = {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({**line, "context": record.context})


@signals.after_setup_logger.connect
@signals.after_setup_task_logger.connect
def write_json(logger, **_):
    for handler in logger.handlers:
        handler.setFormatter(JsonLines())
        handler.addFilter(Context())


@signals.task_prerun.connect
def remember(task_id, task, **_):
    task_of_now.set({"task_id": task_id, "task_name": task.name})


@signals.task_postrun.connect
def forget(**_):
    task_of_now.set(None)


@app.task(name="shop.pack")
def pack(order_id):
    logger.info("order %s is packed", order_id)
