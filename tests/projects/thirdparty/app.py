from celery import Celery

app = Celery("acme", broker="redis://localhost:6379/0")


@app.task(name="acme.work")
def work():
    pass
