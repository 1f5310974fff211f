"""One JSON object a line, to stderr: prefork children that share a rotating file lose lines."""

import json
import logging
import logging.config

from celery import current_task, signals


class JsonFormatter(logging.Formatter):
    """Says which task a record was written in, if it was in one."""

    def format(self, record):
        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current_task:
            line |= {"task": current_task.name, "task_id": current_task.request.id}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=repr)


@signals.setup_logging.connect
def configure_logging(loglevel=logging.INFO, logfile=None, **_):
    """Once a receiver is connected, Celery configures no logging of its own."""
    target = {"class": "logging.FileHandler", "filename": logfile} if logfile else None
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonFormatter}},
            "handlers": {
                "main": {**(target or {"class": "logging.StreamHandler"}), "formatter": "json"},
            },
            "root": {"handlers": ["main"], "level": loglevel},
        }
    )
