import logging.config

from celery import Celery, signals

app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def set_up_logging(**_):
    from django.conf import settings

    logging.config.dictConfig(settings.LOGGING)
