import os

# The guides name a file under /var/log; TASK_LOG stands for it.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "celery": {
            "format": "%(asctime)s %(levelname)s %(processName)s %(task_name)s %(task_id)s %(message)s",
        },
    },
    "handlers": {
        "celery": {
            "level": "INFO",
            "class": "logging.handlers.RotatingFileHandler",
            "filename": os.environ.get("TASK_LOG", os.devnull),
            "maxBytes": 100 * 1024 * 1024,
            "backupCount": 10,
            "formatter": "celery",
        },
    },
    "loggers": {
        "celery": {"handlers": ["celery"], "level": "INFO", "propagate": False},
        "celery.task": {"handlers": ["celery"], "level": "INFO", "propagate": False},
    },
}
