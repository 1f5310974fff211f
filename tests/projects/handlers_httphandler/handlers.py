"""Handlers only log; what is an error goes to the alert server through logging's own HTTPHandler."""

import http.client
import logging
import logging.handlers
import queue
import sys

from celery import signals

logger = logging.getLogger("shop.alerts")
#: For what cannot be told to the alert server.
local = logging.getLogger("shop.local")


class AlertHandler(logging.handlers.HTTPHandler):
    """HTTPHandler has no timeout, sends all that a record holds, and reads no status."""

    timeout = 1.0

    def getConnection(self, host, secure):  # noqa: N802
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(host, timeout=self.timeout)

    def mapLogRecord(self, record):  # noqa: N802
        return {"level": record.levelname, "logger": record.name, "text": record.getMessage()[:2000]}

    def emit(self, record):
        try:
            super().emit(record)
        except Exception:  # noqa: BLE001 - whatever it is
            self.handleError(record)

    def handleError(self, record):  # noqa: N802
        local.warning("alert lost (%s): %s", sys.exc_info()[0].__name__, record.getMessage()[:200])


def install():
    alerts = AlertHandler("alerts.example", "/hooks/shop", method="POST", secure=True)
    alerts.setLevel(logging.ERROR)
    waiting = queue.SimpleQueue()
    logger.addHandler(logging.handlers.QueueHandler(waiting))
    # The thread is the pool process's own.
    signals.worker_process_init.connect(
        lambda **_: logging.handlers.QueueListener(waiting, alerts, respect_handler_level=True).start(),
        weak=False,
    )


install()


@signals.task_failure.connect
def log_failure(sender, task_id, exception, einfo, **_):
    trace = getattr(einfo, "traceback", None) or "no traceback"
    logger.error("%s[%s] failed: %r\n%s", sender.name, task_id, exception, trace)


@signals.task_retry.connect
def log_retry(sender, request, reason=None, **_):
    level = logging.ERROR if request.retries == 3 else logging.INFO
    logger.log(level, "%s[%s] retries (%d): %s", sender.name, request.id, request.retries, reason)


@signals.task_postrun.connect
def log_end(task, task_id, state, **_):
    logger.info("%s[%s] ended: %s", task.name, task_id, state or "unknown")


@signals.task_revoked.connect
def log_revoked(request, terminated, signum, expired, **_):
    logger.warning(
        "%s[%s] revoked (terminated=%s, %s, expired=%s)",
        request.name,
        request.id,
        terminated,
        signum,
        expired,
    )


@signals.task_rejected.connect
def log_rejected(message, exc, **_):
    logger.error("a message of %s was rejected: %r", message.content_type, exc)
