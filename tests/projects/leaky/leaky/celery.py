from celery import Celery, signals

from leaky import leaks

app = Celery("leaky")
app.config_from_object("leaky.settings")


@app.task(name="leaky.leak")
def leak():
    leaks.every_way("task")


@app.task(name="leaky.unnamed")
def unnamed():
    """In the schedule, but not named in the contract: a sandbox never sends it."""
    leaks.every_way("unnamed")


@signals.worker_ready.connect
def on_worker_ready(**_):
    leaks.every_way("worker_ready")


@signals.worker_process_init.connect
def on_worker_process_init(**_):
    leaks.every_way("worker_process_init")


@signals.task_success.connect
def on_task_success(**_):
    leaks.every_way("task_success")


@signals.beat_init.connect
def on_beat_init(**_):
    leaks.every_way("beat_init")
