"""What a loaded app says of itself, as plain data for `AppInfo`."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from enum import Enum
from typing import Any

import celery
from celery import Celery
from celery.beat import ScheduleEntry
from kombu.serialization import prepare_accept_content

_REDBEAT = ("redbeat_redis_url", "redbeat_key_prefix", "redbeat_lock_key", "redbeat_lock_timeout")
_UNSAYABLE = object()
_JSON = "application/json"

#: Characters of a value that is shown.
_LONGEST = 40


def describe(app: Celery, name: str) -> dict[str, Any]:
    """The fields of `AppInfo`. `name` is the app's name in the contract, for an app that has none."""
    conf = app.conf
    queues = dict.fromkeys(str(queue) for queue in app.amqp.queues)  # before routing adds to them
    queues[conf.task_default_queue] = None
    queues |= dict.fromkeys(_route_targets(conf.task_routes))
    entries = conf.beat_schedule or {}
    odd = "" if isinstance(entries, Mapping) else f"beat_schedule is {_shown(entries)}; wanted a mapping"
    schedule = [] if odd else [_entry(app, str(key), value) for key, value in entries.items()]
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
        "schedule_unseen": odd or ("" if schedule else _schedule_elsewhere(conf.beat_scheduler)),
        "unanswering": _unanswering(app),
        "redbeat": {key: plain(conf[key]) for key in _REDBEAT if key in conf},
    }


def own_tasks(app: Celery) -> list[Any]:
    """The tasks that the app defines, Celery's own excluded, by name."""
    return [task for _, task in sorted(app.tasks.items()) if not type(task).__module__.startswith("celery.")]


def _unanswering(app: Celery) -> str:
    if not app.conf.worker_enable_remote_control:
        return "worker_enable_remote_control is off, so workers answer nothing"
    if _JSON not in prepare_accept_content(app.conf.accept_content):
        return "accept_content leaves out JSON, so workers refuse what a look asks"
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
                yield _queue_name(queue)
    elif isinstance(routes, (list, tuple)):
        if len(routes) == 2 and isinstance(routes[1], (str, Mapping)) and not isinstance(routes[0], Mapping):
            yield from _route_targets({routes[0]: routes[1]})  # one (pattern, route) pair
        else:
            for each in routes:
                yield from _route_targets(each)


def _queue_name(queue: Any) -> str:
    return str(getattr(queue, "name", queue))


def _entry(app: Celery, name: str, entry: Any) -> dict[str, Any]:
    try:
        said = vars(entry) if isinstance(entry, ScheduleEntry) else dict(entry)
    except (TypeError, ValueError):
        return _malformed(name, f"is {_shown(entry)}", "a mapping")
    task_name = said.get("task") or ""
    if not isinstance(task_name, str):
        return _malformed(name, f"has {_shown(task_name)} as its task", "its name")
    for key, (fits, wanted) in _FORMS.items():
        value = said.get(key)
        if not fits(value):
            shown = f"{_shown(value)} as its" if value is not None else "no"
            return _malformed(name, f"has {shown} {key}", wanted, task_name)
    args, kwargs = tuple(said.get("args") or ()), dict(said.get("kwargs") or {})
    task = app.tasks.get(task_name)
    queue, problem = _route(app, task_name, task, args, kwargs, dict(said.get("options") or {}))
    if not task_name:
        problem = "it names no task"
    elif task is not None:
        problem = _misfit(task, args, kwargs) or problem
    return {
        "name": name,
        "task": str(task_name),
        "registered": task is not None,
        "queue": queue,
        "problem": problem,
    }


def _malformed(name: str, what: str, wanted: str, task: str = "") -> dict[str, Any]:
    said = {"name": name, "task": task, "registered": False, "queue": ""}
    return {**said, "malformed": what, "wanted": wanted}


def _is_schedule(value: Any) -> bool:
    """Whether beat can ask it when it is due, or makes such a thing of it."""
    if isinstance(value, (int, float)):
        return math.isfinite(value)
    if isinstance(value, timedelta):
        return True
    return not isinstance(value, type) and callable(getattr(value, "is_due", None))


#: What beat can use of an entry, and what is wanted where it cannot.
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "schedule": (_is_schedule, "seconds, a timedelta, crontab or solar"),
    "args": (lambda value: not value or isinstance(value, Iterable), "a list or a tuple"),
    "kwargs": (lambda value: not value or isinstance(value, Mapping), "a mapping"),
    "options": (lambda value: not value or isinstance(value, Mapping), "a mapping"),
}


def _shown(value: Any) -> str:
    if isinstance(value, (str, int, float, type(None))):
        return repr(value) if len(repr(value)) <= _LONGEST else f"{repr(value)[:_LONGEST]}..."
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"a {type(value).__name__}"


def _route(
    app: Celery, name: str, task: Any, args: Any, kwargs: Any, options: dict[str, Any]
) -> tuple[str, str]:
    """The queue that beat's message would go to, and what is wrong with it."""
    if task is not None:
        options = {**task._get_exec_options(), **options}
    try:
        sent = app.amqp.router.route(options, name, args, kwargs, task_type=task)
    except Exception as error:  # noqa: BLE001  (a router is the user's own code)
        return "", f"it cannot be routed: {error}"
    return _queue_name(sent.get("queue") or ""), ""


def _misfit(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    try:
        signature = inspect.signature(task.run)
    except ValueError:  # a builtin function has none
        return ""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return ""


def _schedule_elsewhere(scheduler: Any) -> str:
    name = scheduler if isinstance(scheduler, str) else f"{scheduler.__module__}.{scheduler.__qualname__}"
    if name == "django" or "django_celery_beat" in name:
        return "its entries are in django_celery_beat's table, which this check does not read"
    if "redbeat" in name.lower():
        return "its entries are in Redis (redbeat), which this check does not read"
    return ""


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
