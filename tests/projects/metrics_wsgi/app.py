"""Prefork children leave their metrics in files, which whoever is scraped adds up."""

import math

from celery import Celery, signals
from prometheus_client import CollectorRegistry, Counter, Gauge, start_wsgi_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

app = Celery("shop", broker="redis://production.example:6379/0")

TASKS = Counter("tasks", "Tasks that ended", ["state"])
LOST = Counter("tasks_lost", "Tasks whose process died")
MESSAGES = Gauge("queue_messages", "Ready messages", ["queue"], multiprocess_mode="livemostrecent")


@app.task(name="shop.measure", bind=True, ignore_result=True)
def measure(self):
    try:
        with self.app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=1)
            depth = connection.default_channel._size("celery")
    except Exception:  # noqa: BLE001 - whatever it is, the depth is not known
        depth = math.nan
    MESSAGES.labels(queue="celery").set(depth)


@signals.worker_init.connect
def serve(**_):
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    start_wsgi_server(9100, registry=registry)


@signals.worker_process_shutdown.connect
def forget(pid, **_):
    mark_process_dead(pid)


@signals.task_postrun.connect
def count(state=None, **_):
    TASKS.labels(state=state or "?").inc()


@signals.task_failure.connect
def count_lost(exception, **_):
    if type(exception).__name__ == "WorkerLostError":
        LOST.inc()
