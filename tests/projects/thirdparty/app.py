from celery import Celery
from kombu import Queue

app = Celery("acme", broker="redis://localhost:6379/0")
app.conf.task_queues = [Queue("celery"), Queue("dlq", routing_key="dlq")]


@app.task(name="acme.work")
def work():
    pass
