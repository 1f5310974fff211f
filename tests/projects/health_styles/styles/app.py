from celery import Celery

app = Celery("styles", broker="redis://production.example:6379/0")


@app.task
def work():
    pass
