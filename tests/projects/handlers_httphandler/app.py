"""Two tasks, and handlers that lose no alert without a word."""

from celery import Celery

app = Celery("shop", broker="redis://localhost:6379/0", include=["handlers"])


@app.task(name="shop.pack")
def pack(order_id):
    return order_id


@app.task(name="shop.charge", bind=True, autoretry_for=(OSError,), max_retries=4)
def charge(self, order_id, card):
    raise OSError(f"order {order_id}: the bank does not answer")
