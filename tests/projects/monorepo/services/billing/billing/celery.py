from celery import Celery

app = Celery("billing", broker="redis://localhost:6379/0")
app.conf.task_default_queue = "billing"


@app.task(name="billing.invoice")
def invoice(order_id):
    return order_id
