"""The app of the workers that are looked at. Broker and configuration come from the environment."""

import ast
import os
import time

from celery import Celery

app = Celery("fleet", broker=os.environ["FLEET_BROKER"])
app.conf.update(
    worker_hijack_root_logger=True,
    broker_connection_retry_on_startup=True,
    beat_schedule={},
    **ast.literal_eval(os.environ["FLEET_CONF"]),
)


@app.task(name="fleet.add")
def add(x, y):
    return x + y


@app.task(name="fleet.nap", rate_limit="1000/m")
def nap(seconds):
    time.sleep(seconds)
