"""A pool of threads, and one server of metrics in the one process that there is."""

import time

from celery import Celery, signals
from prometheus_client import Counter, Gauge, Histogram, start_http_server

app = Celery("shop", broker="redis://production.example:6379/0")
app.conf.update(task_routes={"shop.pack": "orders"}, broker_transport_options={"global_keyprefix": "shop:"})

FAILED = Counter("tasks_failed", "Failed tasks", ["task"])
UNKNOWN = Counter("tasks_unknown", "Messages that name no task")
SECONDS = Histogram("task_seconds", "Time that tasks took", ["task"])
MESSAGES = Gauge("queue_messages", "Ready messages", ["name"])
# A failed measurement leaves the gauge as it is, and the alert asks how old it is.
UPDATED = Gauge("queue_messages_updated_seconds", "When queue_messages was measured")
_started = {}


@app.task(name="shop.pack")
def pack(order):
    return order


@app.task(name="shop.measure", ignore_result=True)
def measure():
    options = {**app.conf.broker_transport_options, "socket_timeout": 1, "max_retries": 0}
    with app.connection_for_read(connect_timeout=1, transport_options=options) as connection:
        channel = connection.default_channel
        for name in ("orders", "celery"):
            keys = [channel._q_for_pri(name, priority) for priority in channel.priority_steps]
            with channel.conn_or_acquire() as client:
                MESSAGES.labels(name).set(sum(client.llen(key) for key in keys))
    UPDATED.set(int(time.time()))


@signals.worker_init.connect
def serve(**_):
    start_http_server(9808, addr="127.0.0.1")


@signals.task_prerun.connect
def begin(task_id, **_):
    _started[task_id] = time.monotonic()


@signals.task_postrun.connect
def end(task_id, task, **_):
    SECONDS.labels(task.name).observe(time.monotonic() - _started.pop(task_id, time.monotonic()))


@signals.task_failure.connect
def count_failure(sender, **_):
    FAILED.labels(sender.name).inc()


@signals.task_unknown.connect
def count_unknown(**_):
    UNKNOWN.inc()
