from django.db import transaction
from django.http import HttpResponse

from orders.tasks import pack


def place_order(order_id="o1"):
    with transaction.atomic():
        pack.delay(order_id)


def place_order_in_peace(order_id="o1"):
    with transaction.atomic():
        transaction.on_commit(lambda: pack.delay(order_id), robust=True)


def checkout(request):
    place_order(request.GET.get("order", "o1"))
    return HttpResponse(status=201)
