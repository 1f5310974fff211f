"""What Celery's workers send with each event."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import celery

#: A task's name where there is none.
SOME_TASK = "tasks.some_task"

_ERROR = {"exception": "Exception()", "traceback": "Exception"}
_OF_TASKS: Mapping[str, Mapping[str, Any]] = {
    "task-succeeded": {"result": "None", "runtime": 0.1},
    "task-failed": _ERROR,
    "task-retried": _ERROR,
    "task-rejected": {"requeue": False},
    "task-revoked": {"terminated": False, "signum": None, "expired": False},
}


def completed(event: str, given: Mapping[str, Any], app: celery.Celery) -> dict[str, Any]:
    """The fields of an event, `given` ones and made up ones."""
    if event.startswith("worker-"):
        made: dict[str, Any] = {
            "freq": 2.0,
            "sw_ident": "py-celery",
            "sw_ver": celery.__version__,
            "sw_sys": platform.system(),
        }
        if event == "worker-heartbeat":
            made |= {"active": 0, "processed": 0, "loadavg": (0.0, 0.0, 0.0)}
        return {**made, **given}
    if not event.startswith("task-"):
        return dict(given)
    uuid = str(given.get("uuid") or uuid4())
    made = {"uuid": uuid, **_OF_TASKS.get(event, {})}
    if event in ("task-sent", "task-received"):
        made |= {"name": SOME_TASK, "args": "()", "kwargs": "{}", "root_id": uuid, "parent_id": None}
        made |= {"retries": 0, "eta": None, "expires": None}
    if event == "task-sent":
        queue = app.conf.task_default_queue
        made |= {"queue": queue, "exchange": "", "routing_key": queue}
    return {**made, **given}
