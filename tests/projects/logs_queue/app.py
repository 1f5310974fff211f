"""Records go through a queue, from which a thread of each process takes them."""

import logging
import logging.handlers
import queue

from celery import Celery, current_task, signals

logger = logging.getLogger("shop")
app = Celery("shop", broker="redis://localhost:6379/0")
listener = None


class TaskId(logging.Filter):
    """Before the queue: the thread behind it runs no task."""

    def filter(self, record):
        record.task_id = current_task.request.id if current_task else ""
        return True


def listen():
    global listener
    waiting = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(waiting)
    handler.addFilter(TaskId())
    logging.root.handlers = [handler]
    writer = logging.StreamHandler()
    writer.setFormatter(logging.Formatter("%(levelname)s %(name)s task_id=%(task_id)s %(message)s"))
    listener = logging.handlers.QueueListener(waiting, writer)
    listener.start()


@signals.setup_logging.connect
def set_up_logging(loglevel, **_):
    logging.root.setLevel(loglevel)
    listen()


@signals.worker_process_init.connect
def listen_again(**_):
    listen()


@signals.worker_process_shutdown.connect
def write_the_rest(**_):
    listener.stop()


@app.task(name="shop.pack")
def pack(order_id):
    logger.info("order %s is packed", order_id)
