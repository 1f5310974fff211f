"""What the shop's web process does: it publishes, and somebody waits for its answer."""

from kombu import pools

from shop.celery import app
from shop.tasks import process_order

#: Seconds that each exchange with the broker may take.
TIMEOUT = 0.5


def publish(task, *args):
    """Send a task, or raise OperationalError, within a few times TIMEOUT.

    On connections of their own: workers and remote control, which wait for messages, need the app's patience.
    Nothing is sent again, as what got no answer may have been taken. The web process waits for no result.
    """
    options = {
        **app.conf.broker_transport_options,
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "max_retries": 0,
    }
    connection = app.connection_for_write(connect_timeout=TIMEOUT, transport_options=options)
    with pools.producers[connection].acquire(block=True, timeout=TIMEOUT) as producer:
        task.apply_async(args, producer=producer, retry=False, ignore_result=True)


def place_order(order_id="o1"):
    publish(process_order, order_id)
