import os

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

SECRET_KEY = "of a test"
USE_TZ = True
ROOT_URLCONF = "mysite.urls"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["health_check", "orders"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
    },
}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_DEFAULT_QUEUE = "orders"
CELERY_BEAT_SCHEDULE = {"heartbeat": {"task": "orders.tasks.beat_heartbeat", "schedule": 30.0}}

# To stderr: what collects it does the rest, and prefork children that share a rotating file lose lines.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "task": {
            "()": "celery.app.log.TaskFormatter",
            "fmt": "%(asctime)s %(levelname)s %(task_name)s %(task_id)s %(name)s %(message)s",
            "use_color": False,
        },
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "task"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
