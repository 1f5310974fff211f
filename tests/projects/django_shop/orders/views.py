from functools import partial

from celery import current_app
from django.db import transaction
from django.http import HttpResponse
from kombu import pools
from kombu.exceptions import OperationalError

from orders.tasks import pack

#: Seconds that each exchange with the broker may take.
TIMEOUT = 0.5
BOUNDS = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "max_retries": 0}


def publish(task, *args):
    """Send a task, or raise OperationalError in time. On connections that workers do not share."""
    options = {**current_app.conf.broker_transport_options, **BOUNDS}
    connection = current_app.connection_for_write(connect_timeout=TIMEOUT, transport_options=options)
    with pools.producers[connection].acquire(block=True, timeout=TIMEOUT) as producer:
        task.apply_async(args, producer=producer, retry=False)


def place_order(order_id="o1"):
    with transaction.atomic():
        transaction.on_commit(partial(publish, pack, order_id))


def checkout(request):
    try:
        place_order(request.GET.get("order", "o1"))
    except OperationalError:
        return HttpResponse("try again", status=503)
    return HttpResponse(status=201)
