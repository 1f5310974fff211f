"""Every process pushes what it counts, under a name of its own; who measures the queues pushes that."""

import logging
import os
import socket

from celery import Celery, signals
from prometheus_client import CollectorRegistry, Counter, Gauge, delete_from_gateway, push_to_gateway

app = Celery("shop", broker="redis://production.example:6379/0")
GATEWAY = os.environ.get("PUSHGATEWAY", "pushgateway.internal:9091")
logger = logging.getLogger(__name__)

registry = CollectorRegistry()
FAILED = Counter("tasks_failed", "Failed tasks", registry=registry)


@app.task(name="shop.measure", ignore_result=True)
def measure():
    queues = CollectorRegistry()
    messages = Gauge("queue_messages", "Ready messages", ["queue"], registry=queues)
    options = {"socket_timeout": 1, "socket_connect_timeout": 1, "max_retries": 0}
    try:
        with app.connection_for_read(connect_timeout=1, transport_options=options) as connection:
            messages.labels("celery").set(connection.default_channel._size("celery"))
    except Exception:
        logger.exception("queues were not measured")
        delete_from_gateway(GATEWAY, job="queues", timeout=2)
    else:
        push_to_gateway(GATEWAY, job="queues", registry=queues, timeout=2)


@signals.task_failure.connect
def count_failure(**_):
    FAILED.inc()
    process = {"instance": f"{socket.gethostname()}/{os.getpid()}"}
    try:
        push_to_gateway(GATEWAY, job="worker", grouping_key=process, registry=registry, timeout=2)
    except OSError:
        logger.exception("metrics were not pushed")
