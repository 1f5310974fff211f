import os

SECRET_KEY = "of a test"
USE_TZ = True
INSTALLED_APPS = ["orders"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
ADMINS = [("Ops", "ops@shop.example")]

CELERY_BROKER_URL = "redis://localhost:6379/0"

# Django leaves it to the worker's setup_logging.
LOGGING_CONFIG = None
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"production": {"()": "django.utils.log.RequireDebugFalse"}},
    "formatters": {
        "task": {
            "()": "celery.app.log.TaskFormatter",
            "fmt": "[%(asctime)s: %(levelname)s/%(processName)s] [%(task_name)s(%(task_id)s)] %(message)s",
            "use_color": False,
        }
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "task"},
        "file": {
            "class": "logging.handlers.WatchedFileHandler",
            "filename": os.environ.get("TASK_LOG", os.devnull),
            "formatter": "task",
        },
        "mail_admins": {
            "level": "CRITICAL",
            "filters": ["production"],
            "class": "django.utils.log.AdminEmailHandler",
        },
    },
    "root": {"handlers": ["console", "mail_admins"], "level": "INFO"},
    "loggers": {
        "django": {"handlers": ["console"], "level": "INFO", "propagate": False},
        "celery": {"handlers": ["console", "file"], "level": "INFO", "propagate": False},
        "orders": {"handlers": ["console", "file"], "level": "DEBUG", "propagate": False},
    },
}
