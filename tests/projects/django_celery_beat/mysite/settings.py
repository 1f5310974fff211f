import os

SECRET_KEY = "of a test"
USE_TZ = True
INSTALLED_APPS = ["django_celery_beat"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DECOY_SQLITE", "decoy.sqlite3"),
    },
}

CELERY_BROKER_URL = "redis://localhost:6379/0"
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_SCHEDULE = {"heartbeat": {"task": "mysite.heartbeat", "schedule": 30.0, "enabled": True}}
