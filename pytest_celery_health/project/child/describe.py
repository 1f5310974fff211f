"""What a loaded app says of itself, as plain data for `AppInfo`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import celery
from celery import Celery
from kombu.serialization import prepare_accept_content

from pytest_celery_health.project.child.destination import queue_name
from pytest_celery_health.project.child.schedule import read_schedule

_REDBEAT = ("redbeat_redis_url", "redbeat_key_prefix", "redbeat_lock_key", "redbeat_lock_timeout")
_TOLD = ("exchange", "routing_key", "rate_limit", "time_limit", "soft_time_limit")
_UNSAYABLE = object()
_JSON = "application/json"


def describe(app: Celery, name: str) -> dict[str, Any]:
    """The fields of `AppInfo`. `name` is the app's name in the contract, for an app that has none."""
    conf = app.conf
    queues = dict.fromkeys(str(queue) for queue in app.amqp.queues)  # before routing adds to them
    queues[conf.task_default_queue] = None
    queues |= dict.fromkeys(_route_targets(conf.task_routes))
    schedule, schedule_unseen = read_schedule(app)
    queues |= dict.fromkeys(entry["queue"] for entry in schedule if entry["queue"])
    return {
        "name": app.main or name,
        "celery_version": celery.__version__,
        "broker_url": _broker_url(app),
        "broker_transport_options": plain(conf.broker_transport_options or {}),
        "broker_use_ssl": plain(conf.broker_use_ssl or None),
        "broker_login_method": conf.broker_login_method,
        "control_exchange": conf.get("control_exchange", "celery"),
        "event_exchange": conf.get("event_exchange", "celeryev"),
        "control_queue_exclusive": conf.get("control_queue_exclusive"),
        "default_queue": conf.task_default_queue,
        "queues": list(queues),
        "tasks": [task.name for task in own_tasks(app)],
        "schedule": schedule,
        "schedule_unseen": schedule_unseen,
        "unanswering": _unanswering(app),
        "unreadable": _unreadable(app),
        "redbeat": {key: plain(conf[key]) for key in _REDBEAT if key in conf},
    }


def own_tasks(app: Celery) -> list[Any]:
    """The tasks that the app defines, Celery's own excluded, by name."""
    return [task for _, task in sorted(app.tasks.items()) if not type(task).__module__.startswith("celery.")]


def registered(app: Celery) -> dict[str, dict[str, str]]:
    """The imported tasks, without Celery's, and what a worker tells of each when asked for `registered`."""
    return {
        name: {key: str(value) for key in _TOLD if (value := getattr(task, key, None)) is not None}
        for name, task in app.tasks.items()
        if not name.startswith("celery.")
    }


def _unanswering(app: Celery) -> str:
    if not app.conf.worker_enable_remote_control:
        return "worker_enable_remote_control is off, so workers answer nothing"
    if _JSON not in prepare_accept_content(app.conf.accept_content):
        return "accept_content leaves out JSON, so workers refuse what a look asks"
    return ""


def _unreadable(app: Celery) -> str:
    serializer = app.control.mailbox.serializer or "json"
    if serializer != "json":
        return f"workers answer in {serializer} (task_serializer), and a look reads JSON only"
    return ""


def _broker_url(app: Celery) -> str:
    url = app.conf.broker_read_url
    if url and not isinstance(url, str):
        return ";".join(url)
    if url and "://" in url:
        return str(url)
    # Put together from broker_host, broker_user, ... or from nothing: Celery's own defaults.
    return str(app.connection_for_read().as_uri(include_password=True))


def _route_targets(routes: Any) -> Iterable[str]:
    """Queues that `task_routes` names outright; what a router function would say is not known."""
    if isinstance(routes, Mapping):
        for route in routes.values():
            queue = route.get("queue") if isinstance(route, Mapping) else route
            if queue:
                yield queue_name(queue)
    elif isinstance(routes, (list, tuple)):
        if len(routes) == 2 and isinstance(routes[1], (str, Mapping)) and not isinstance(routes[0], Mapping):
            yield from _route_targets({routes[0]: routes[1]})  # one (pattern, route) pair
        else:
            for each in routes:
                yield from _route_targets(each)


def plain(value: Any) -> Any:
    """`value` as JSON can say it: enums by value, paths as text; what it cannot say is left out."""
    found = _plain(value)
    return None if found is _UNSAYABLE else found


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, Mapping):
        said = {str(key): _plain(each) for key, each in value.items()}
        return {key: each for key, each in said.items() if each is not _UNSAYABLE}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [said for said in map(_plain, value) if said is not _UNSAYABLE]
    return _UNSAYABLE
