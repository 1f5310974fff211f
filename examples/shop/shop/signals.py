"""Logs and alerts. Celery swallows what a handler raises, so none here relies on raising."""

import logging
import os
from collections import deque

import requests
from celery import signals

logger = logging.getLogger("shop.signals")

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
#: A handler may run in the worker's main process, which answers nobody meanwhile.
TIMEOUT = (1, 2)
CRITICAL_TASKS = {"shop.tasks.process_payment", "shop.tasks.send_critical_notification"}
ALERT_AT_RETRY = 3
COLORS = {"info": "#36a64f", "warning": "#ff9800", "error": "#f44336"}

# Celery 5.7 reports a hard time limit twice.
_alerted = deque(maxlen=1000)


def describe(exception):
    """The exception in words, also when its own `__str__` raises."""
    try:
        return f"{type(exception).__name__}: {exception}"
    except Exception:  # noqa: BLE001 - it is not our code
        return type(exception).__name__


def post(name, url, payload):
    """Whether `url` took the alert; a lost alert is logged with its text."""
    try:
        response = requests.post(url, json=payload, timeout=TIMEOUT)
        response.raise_for_status()
    except requests.RequestException as error:
        # An HTTPError names the URL, and a Slack URL is a secret.
        status = getattr(error.response, "status_code", None)
        why = f"HTTP {status}" if status else type(error).__name__
        logger.error("%s alert lost (%s): %s", name, why, payload)
        return False
    return True


def send_slack_alert(message, level="warning"):
    url = os.environ.get("SLACK_WEBHOOK_URL")
    if not url:
        logger.warning("Slack alert not sent, SLACK_WEBHOOK_URL is not set: %s", message)
        return False
    return post("Slack", url, {"attachments": [{"color": COLORS[level], "text": message}]})


def page(task_name, task_id, reason):
    key = os.environ.get("PAGERDUTY_ROUTING_KEY")
    if not key:
        logger.warning("page not sent, PAGERDUTY_ROUTING_KEY is not set: %s failed", task_name)
        return False
    payload = {
        "routing_key": key,
        "event_action": "trigger",
        "dedup_key": task_id,
        "payload": {
            "summary": f"Critical task failed: {task_name}",
            "source": "shop",
            "severity": "critical",
            "custom_details": {"task_id": task_id, "exception": reason},
        },
    }
    return post("PagerDuty", PAGERDUTY_URL, payload)


@signals.task_prerun.connect
def log_start(task_id, task, **_):
    logger.info("task starting: %s[%s]", task.name, task_id)


@signals.task_postrun.connect
def log_end(task_id, task, state=None, **_):
    logger.info("task ended: %s[%s] %s", task.name, task_id, state)


@signals.task_failure.connect
def log_failure(sender, task_id, exception, **_):
    logger.error("task failed: %s[%s] %s", sender.name, task_id, describe(exception), exc_info=exception)


# A worker that is ended without having finished also sends task_retry, without a reason.
@signals.task_retry.connect
def log_retry(sender, request, reason=None, **_):
    logger.warning("task retrying: %s[%s] %s", sender.name, request.id, describe(reason))


@signals.task_failure.connect
def alert_on_failure(sender, task_id, exception, **_):
    if task_id in _alerted:
        return
    _alerted.append(task_id)
    reason = describe(exception)
    send_slack_alert(f"Task `{sender.name}` failed: {reason}", level="error")
    if sender.name in CRITICAL_TASKS:
        page(sender.name, task_id, reason)


@signals.task_retry.connect
def alert_on_retry(sender, request, reason=None, **_):
    # The first retry is number 0, and a task may allow fewer than three.
    number = request.retries + 1
    if number == min(ALERT_AT_RETRY, sender.max_retries or ALERT_AT_RETRY):
        send_slack_alert(f"Task `{sender.name}` retries for the {number}. time: {describe(reason)}")


@signals.task_unknown.connect
def alert_on_unknown(name, id, **_):  # noqa: A002
    logger.error("no such task: %s[%s]", name, id)
    send_slack_alert(f"Task `{name}` is not registered on the worker that took it", level="error")


@signals.task_rejected.connect
def alert_on_rejected(exc=None, **_):
    logger.error("a message was rejected: %s", describe(exc))
    send_slack_alert(f"A message is not a task and was rejected: {describe(exc)}", level="error")
