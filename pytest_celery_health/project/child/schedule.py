"""The schedule that an app configures: whether beat could use each of its entries, and a worker its task."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from celery import Celery, schedules
from celery.beat import ScheduleEntry
from celery.utils.imports import load_extension_class_names, symbol_by_name

from pytest_celery_health.project.child.destination import destination
from pytest_celery_health.project.child.message import flaw, shown

#: What Celery's own beat takes in an entry, `name` and `app` being its own.
KEYS = tuple(key for key in inspect.signature(ScheduleEntry).parameters if key not in ("name", "app"))
_REFUSED = re.compile(r"unexpected keyword argument '([^']*)'")


def read_schedule(app: Celery) -> tuple[list[dict[str, Any]], str]:
    """The fields of each `Entry`, and why there are none if they are kept elsewhere."""
    entries = app.conf.beat_schedule or {}
    if not isinstance(entries, Mapping):
        return [], f"beat_schedule is {shown(entries)}; wanted a mapping"
    schedule = [_entry(app, str(key), value) for key, value in entries.items()]
    return schedule, "" if schedule else _elsewhere(app.conf.beat_scheduler)


def _entry(app: Celery, name: str, entry: Any) -> dict[str, Any]:
    try:
        said = vars(entry) if isinstance(entry, ScheduleEntry) else dict(entry)
    except (TypeError, ValueError):
        return _malformed(name, f"is {shown(entry)}", "a mapping")
    task_name = said.get("task") or ""
    if not isinstance(task_name, str):
        return _malformed(name, f"has {shown(task_name)} as its task", "its name")
    for key, (fits, wanted) in _FORMS.items():
        value = said.get(key)
        if not fits(value):
            what = f"{shown(value)} as its" if value is not None else "no"
            return _malformed(name, f"has {what} {key}", wanted, task_name)
    refused = "" if isinstance(entry, ScheduleEntry) else _refused(app, name, said)
    if refused:
        what = f"has the key {refused}, which {_name_of(app.conf.beat_scheduler)} does not take"
        return _malformed(name, what, "task, schedule, args, kwargs, options or relative", task_name)
    args, kwargs = tuple(said.get("args") or ()), dict(said.get("kwargs") or {})
    task = app.tasks.get(task_name)
    options = dict(said.get("options") or {})
    goes_to, problem = _route(app, task_name, task, args, kwargs, options)
    malformed = wanted = ""
    if not task_name:
        problem = "it names no task"
    elif task is not None:
        problem = _misfit(task, args, kwargs) or problem
        if not problem:
            malformed, wanted = flaw(app, task, args, kwargs, options)
    return {
        "name": name,
        "task": str(task_name),
        "registered": task is not None,
        "queue": "",
        **goes_to,
        "problem": problem,
        "malformed": malformed,
        "wanted": wanted,
    }


def _malformed(name: str, what: str, wanted: str, task: str = "") -> dict[str, Any]:
    said = {"name": name, "task": task, "registered": False, "queue": ""}
    return {**said, "malformed": what, "wanted": wanted}


def _is_schedule(value: Any) -> bool:
    """Whether beat can ask it when it is due, or makes such a thing of it.

    An entry whose interval is not above 0 is always due: beat sends it without pause.
    """
    if isinstance(value, (int, float)):
        return math.isfinite(value) and value > 0
    if isinstance(value, timedelta):
        return value > timedelta(0)
    if getattr(type(value), "is_due", None) is schedules.schedule.is_due:
        return _is_schedule(value.run_every)
    return not isinstance(value, type) and callable(getattr(value, "is_due", None))


#: What beat can use of an entry, and what is wanted where it cannot.
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "schedule": (_is_schedule, "seconds above 0, a timedelta, crontab or solar"),
    "args": (lambda value: not value or isinstance(value, Iterable), "a list or a tuple"),
    "kwargs": (lambda value: not value or isinstance(value, Mapping), "a mapping"),
    "options": (lambda value: not value or isinstance(value, Mapping), "a mapping"),
}


def _route(
    app: Celery, name: str, task: Any, args: Any, kwargs: Any, options: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Where beat's message would go, and what is wrong with it."""
    if task is not None:
        options = {**task._get_exec_options(), **options}
    try:
        sent = app.amqp.router.route(options, name, args, kwargs, task_type=task)
    except Exception as error:  # noqa: BLE001  (a router is the user's own code)
        return {}, f"it cannot be routed: {error}"
    return destination(app, sent), ""


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


def _elsewhere(scheduler: Any) -> str:
    name = _name_of(scheduler)
    if name == "django" or "django_celery_beat" in name:
        return "its entries are in django_celery_beat's table, which this check does not read"
    if "redbeat" in name.lower():
        return "its entries are in Redis (redbeat), which this check does not read"
    return ""


def _name_of(scheduler: Any) -> str:
    return scheduler if isinstance(scheduler, str) else f"{scheduler.__module__}:{scheduler.__qualname__}"


def scheduler_of(app: Celery) -> Any:
    """The class of the app's scheduler, found as beat finds it; None if it cannot be imported."""
    try:
        aliases = dict(load_extension_class_names("celery.beat_schedulers"))
        return symbol_by_name(app.conf.beat_scheduler, aliases=aliases)
    except Exception:  # noqa: BLE001 - importing is the user's code
        return None


def _refused(app: Celery, name: str, said: Mapping[Any, Any]) -> str:
    """A key of an entry that beat does not take, shown; "" if there is none, or nobody can tell.

    Celery's own scheduler does not start with such an entry. Others know further keys, and leave an entry out
    that has one they do not know.
    """
    further = [key for key in said if key not in (*KEYS, "name", "app")]
    scheduler = scheduler_of(app) if further else None
    if scheduler is None:
        return ""
    kind = getattr(scheduler, "Entry", ScheduleEntry)
    if hasattr(kind, "from_entry"):
        # django-celery-beat's, whose table has a column for each key. It makes an entry by writing it there.
        columns = {field.name for field in scheduler.Model._meta.get_fields()}
        return next((shown(key) for key in further if key not in columns), "")
    odd = next((shown(key) for key in further if not isinstance(key, str)), "")
    if odd:
        return odd
    try:
        kind(**{**said, "name": name, "app": app})
    except TypeError as error:
        refused = _REFUSED.search(str(error))
        return repr(refused[1]) if refused else ""
    except Exception:  # noqa: BLE001 - a scheduler of the project's own
        return ""
    return ""
