"""One httpx client for all alerts, with a second server for when the first is down."""

import logging
from functools import lru_cache, partial

import httpx
from celery import signals

logger = logging.getLogger(__name__)
SERVERS = ("https://alerts.example/v2/events", "https://backup.example/v2/events")
TIMEOUT = httpx.Timeout(0.8, connect=0.3)
WATCHED = {"shop.charge"}


@lru_cache(maxsize=1)
def client():
    return httpx.Client(timeout=TIMEOUT, headers={"authorization": "Bearer 7f3a"})


def alert(kind, summary):
    for url in SERVERS:
        try:
            answer = client().post(url, json={"kind": kind, "summary": summary[:500]})
        except httpx.HTTPError as error:
            logger.info("%s: %s", url, type(error).__name__)
            continue
        if answer.is_success:
            return
    logger.error("nobody took the alert: %s", summary)


def summarize(error):
    """Never raises: an exception is the code of others."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - whatever it is
        return type(error).__name__


class Notifier:
    """Its methods are handlers, so it is kept."""

    def failed(self, sender=None, exception=None, task_id="", **_):
        if sender.name in WATCHED:
            alert("failed", f"{sender.name} {task_id}: {summarize(exception)}")

    def retried(self, sender=None, request=None, reason=None, **_):
        if request.retries + 1 == sender.max_retries:
            alert("last retry", f"{sender.name} {request.id}: {summarize(reason)}")


notifier = Notifier()
signals.task_failure.connect(notifier.failed)
signals.task_retry.connect(notifier.retried)
signals.task_unknown.connect(
    partial(lambda name, **_: alert("unknown", f"no task is named {name}")), weak=False
)
