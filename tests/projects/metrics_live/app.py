"""A collector that asks the broker whenever somebody scrapes: there is no old value."""

from celery import Celery, signals
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import GaugeMetricFamily

app = Celery("shop", broker="redis://production.example:6379/0")
app.conf.task_routes = {"shop.pack": "orders"}


@app.task(name="shop.pack")
def pack(order):
    return order


class Queues:
    def describe(self):
        return [GaugeMetricFamily("queue_messages", "Ready messages", labels=["queue"])]

    def collect(self):
        (family,) = self.describe()
        with app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=1)
            for name in ("celery", "orders"):
                family.add_metric([name], connection.default_channel._size(name))
        yield family


@signals.worker_init.connect
def serve(**_):
    REGISTRY.register(Queues())
    start_http_server(9808)
