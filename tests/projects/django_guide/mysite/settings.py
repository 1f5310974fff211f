import os

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

SECRET_KEY = "of a test"
USE_TZ = True
ROOT_URLCONF = "mysite.urls"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["health_check", "orders"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_DEFAULT_QUEUE = "orders"
CELERY_BEAT_SCHEDULE = {"heartbeat": {"task": "orders.tasks.beat_heartbeat", "schedule": 30.0}}

# The guides name a file under /var/log; TASK_LOG stands for it.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "celery": {
            "format": "[%(asctime)s: %(levelname)s/%(processName)s] [%(task_name)s(%(task_id)s)] %(message)s",
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
