from celery import Celery, signals

app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def configure_logging(**_):
    """Django's LOGGING is in force; a receiver here keeps the worker from replacing it."""
