"""The message that beat would make of an entry: whether it can be made, and whether workers take it.

None is sent. It is made by what Celery has below `apply_async`, which itself sends signals, asks the result
backend, and runs the task if it is always eager.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from celery import Celery, Task
from celery.beat import BeatLazyFunc
from celery.utils.functional import maybe_list
from celery.utils.time import maybe_iso8601
from kombu.compression import get_encoder
from kombu.serialization import dumps, prepare_accept_content
from kombu.utils import json
from kombu.utils.uuid import uuid

#: Characters of a value that is shown.
_LONGEST = 40
#: Options that Celery hands on to `create_task_message` as they are.
_PASSED = ("countdown", "eta", "expires", "time_limit", "soft_time_limit", "shadow", "chain", "chord")
#: What beat can do with an entry, and a worker with its message.
SENT = "a message that beat can send"
TAKEN = "a message that workers take"
#: AMQP has one byte for it.
_PRIORITIES = range(256)


def shown(value: Any) -> str:
    """`value` for a reader: text and numbers as they are written, of all else the kind."""
    if isinstance(value, (str, int, float, type(None))):
        return repr(value) if len(repr(value)) <= _LONGEST else f"{repr(value)[:_LONGEST]}..."
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"a {type(value).__name__}"


def driver_of(app: Celery) -> str:
    """The family of the broker that the app sends to, as kombu calls it; "" if nobody can tell."""
    try:
        return str(app.connection_for_write().get_transport_cls().driver_type)
    except Exception:  # noqa: BLE001 - the transport's module may be missing or broken
        return ""


def flaw(
    app: Celery, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]
) -> tuple[str, str]:
    """What is wrong with the message to `task`, and what is wanted; two times "" if nothing is.

    Nothing is said of an app or a task that sends in its own way: what it makes of its arguments is not known
    without sending.
    """
    if type(task).apply_async is not Task.apply_async or type(app).send_task is not Celery.send_task:
        return "", ""
    try:
        inspect.signature(Task.apply_async).bind(task, args, kwargs, producer=None, **options)
        sent = {**task._get_exec_options(), **options}
        inspect.signature(Celery.send_task).bind(
            app, task.name, args, kwargs, result_cls=None, task_type=task, **sent
        )
    except TypeError as error:
        return f"cannot be sent: options: {error}", SENT
    for option, value in sent.items():
        try:
            why, wanted = ("", "") if value is None else _unfit(app, option, value)
        except Exception as error:  # noqa: BLE001 - what Celery raises for it
            why, wanted = str(error) or type(error).__name__, SENT
        if why:
            verb = "cannot be sent" if wanted == SENT else "is refused by workers"
            return f"{verb}: {option} {shown(value)}: {why}", wanted
    try:
        content_type = _encode(app, task, args, kwargs, sent)
    except Exception as error:  # noqa: BLE001 - encoders and arguments may be the user's own code
        return f"cannot be sent: {error}", SENT
    accepted = prepare_accept_content(app.conf.accept_content)
    if accepted is not None and content_type not in accepted:
        return f"is refused by workers: accept_content leaves out {content_type}", TAKEN
    return "", ""


def _encode(app: Celery, task: Any, args: Any, kwargs: Any, sent: Mapping[str, Any]) -> str:
    """Make the message and encode it; its content type."""
    args = [None if isinstance(value, BeatLazyFunc) else value for value in args]
    kwargs = {key: None if isinstance(value, BeatLazyFunc) else value for key, value in kwargs.items()}
    serializer = sent.get("serializer")
    dump = getattr(task, "_dump_pydantic_arguments", None)
    if dump is not None and serializer != "pickle":
        args, kwargs = dump(args, kwargs)
    message = app.amqp.create_task_message(
        uuid(),
        task.name,
        args,
        kwargs,
        callbacks=maybe_list(sent.get("link")),
        errbacks=maybe_list(sent.get("link_error")),
        **{option: sent[option] for option in _PASSED if option in sent},
    )
    # As most brokers get them; those of AMQP take about the same.
    json.dumps({**message.headers, **(sent.get("headers") or {})})
    content_type, _, _ = dumps(message.body, serializer=serializer or app.conf.task_serializer)
    return str(content_type)


def _unfit(app: Celery, option: str, value: Any) -> tuple[str, str]:
    """Why an option of a message cannot be so, and what is wanted. Raises what Celery raises of it."""
    if option in ("countdown", "eta", "expires"):
        app.amqp.create_task_message(uuid(), "", **{option: value})
    if option in ("eta", "expires") and isinstance(value, str):
        try:
            maybe_iso8601(value)
        except ValueError as error:
            return str(error), SENT if option == "expires" else TAKEN
    if option in ("time_limit", "soft_time_limit"):
        try:
            float(value)
        except (TypeError, ValueError):
            return "a worker's pool ends of what is no number", TAKEN
    if option == "compression":
        try:
            get_encoder(value)
        except KeyError:
            return "no such compression is installed", SENT
    is_byte = isinstance(value, int) and value in _PRIORITIES
    if option == "priority" and not is_byte and driver_of(app) == "amqp":
        return "AMQP wants a whole number from 0 to 255", SENT
    if option in ("headers", "retry_policy") and not isinstance(value, Mapping):
        return "it is no mapping", SENT
    return "", ""
