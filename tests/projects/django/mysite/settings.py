import os

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

SECRET_KEY = "of a test"
USE_TZ = True
INSTALLED_APPS = ["orders"]
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_DEFAULT_QUEUE = "orders"
CELERY_BEAT_SCHEDULE = {"heartbeat": {"task": "orders.tasks.heartbeat", "schedule": 30.0}}
