import logging

import requests
from celery import signals

logger = logging.getLogger("celery.task")

SLACK_WEBHOOK_URL = "https://hooks.slack.com/services/XXX/YYY/ZZZ"
PAGERDUTY_URL = "https://events.pagerduty.com/generic/2010-04-15/create_event.json"
CRITICAL_TASKS = ["process_payment", "send_critical_notification"]


@signals.task_prerun.connect
def task_started(task_id, task, args, kwargs, **kw):
    logger.info(f"Task {task.name} starts: {task_id}")


@signals.task_postrun.connect
def task_ended(task_id, task, args, kwargs, retval, state, **kw):
    logger.info(f"Task {task.name} ends: {task_id} {state}")


@signals.task_failure.connect
def task_failed(task_id, exception, args, kwargs, traceback, einfo, **kw):
    logger.error(f"Task {task_id} failed", exc_info=True, extra={"args": args, "kwargs": kwargs})


@signals.task_retry.connect
def task_retries(request, reason, einfo, **kw):
    logger.warning(f"Task {request.id} retries: {reason}")


def send_slack_alert(message, level="warning"):
    colors = {"info": "#36a64f", "warning": "#ff9800", "error": "#f44336"}
    attachment = {"color": colors.get(level, "#808080"), "text": message}
    requests.post(SLACK_WEBHOOK_URL, json={"attachments": [attachment]})


@signals.task_failure.connect
def slack_on_failure(sender, task_id, exception, **kw):
    send_slack_alert(f"Task `{sender.name}` failed: {exception}", level="error")


@signals.task_retry.connect
def slack_on_retry(sender, request, reason, **kw):
    if request.retries >= 3:
        send_slack_alert(f"Task `{sender.name}` retries ({request.retries}): {reason}")


def create_event(data):
    """What PagerDuty's old client does: no timeout, and an error status raises."""
    requests.post(PAGERDUTY_URL, json=data).raise_for_status()


@signals.task_failure.connect
def pagerduty_on_failure(sender, task_id, exception, **kw):
    if sender.name in CRITICAL_TASKS:
        create_event(
            {
                "service_key": "your-service-key",
                "event_type": "trigger",
                "description": f"Critical task failed: {sender.name}",
                "details": {"task_id": task_id, "exception": str(exception)},
            }
        )
