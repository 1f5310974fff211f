"""Where an entry's message goes: what Celery itself makes of an exchange and a routing key."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_celery_health.facts import Entry
from pytest_celery_health.project.describe import describe
from pytest_celery_health.project.info import AppSpec

Write = Callable[..., AppSpec]

APP = """
from celery import Celery
from kombu import Exchange, Queue, binding
app = Celery("shop", broker={broker!r}, set_as_current=False)
conf = app.conf
tx, dx, fx = Exchange("tx", "topic"), Exchange("dx"), Exchange("fx", "fanout")
conf.task_queues = [
    Queue("celery"),
    Queue("topics", tx, routing_key="a.#"),
    Queue("other", tx, routing_key="*.c"),
    Queue("direct", dx, routing_key="k"),
    Queue("fan", fx),
    Queue("many", bindings=[binding(dx, "m1"), binding(dx, "m2")]),
]
conf.task_routes = {{"routed": {{"exchange": "dx", "routing_key": "k"}}}}
@app.task(name="t")
def t(): ...
@app.task(name="routed")
def routed(): ...
@app.task(name="own", exchange="dx", routing_key="nobody")
def own(): ...
conf.beat_schedule = {{"e": {{"task": {task!r}, "schedule": 60, "options": {options}}}}}
"""


def _goes(project: Write, options: str, broker: str = "amqp://127.0.0.1:1", task: str = "t") -> Entry:
    code = APP.format(options=options, broker=broker, task=task)
    (entry,) = describe(project("shop", {"shop.py": code}), timeout=10).schedule
    assert (entry.problem, entry.malformed) == ("", "")
    return entry


@pytest.mark.parametrize(
    ("options", "queue"),
    [
        ({}, "celery"),
        ({"routing_key": "orphan"}, "celery"),
        ({"exchange": "ex"}, "celery"),
        ({"exchange": "tx"}, "celery"),
        ({"exchange": "", "routing_key": "direct"}, "celery"),
        ({"queue": "direct", "routing_key": "zz"}, "direct"),
    ],
)
def test_one_of_both_is_not_heeded(project: Write, options: object, queue: str) -> None:
    entry = _goes(project, repr(options))
    assert (entry.queue, entry.exchange) == (queue, "")


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ('{"exchange": "ex", "routing_key": "orphan"}', None),
        ('{"exchange": "dx", "routing_key": "k"}', ("direct",)),
        ('{"exchange": "dx", "routing_key": "m2"}', ("many",)),
        ('{"exchange": "tx", "routing_key": "a.b"}', ("topics",)),
        ('{"exchange": tx, "routing_key": "a.c"}', ("other", "topics")),
        ('{"exchange": "fx", "routing_key": "any"}', ("fan",)),
        ('{"queue": "topics"}', ("topics",)),
        ('{"queue": "topics", "routing_key": "zz"}', None),
        ('{"queue": "new", "exchange": "ex", "routing_key": "k"}', None),
    ],
)
def test_both_are(project: Write, options: str, bound: tuple[str, ...] | None) -> None:
    entry = _goes(project, options)
    assert entry.queue == ""
    assert entry.exchange
    assert (entry.bound if isinstance(entry.bound, tuple) else None) == bound


def test_routes_and_tasks_that_name_both(project: Write) -> None:
    assert _goes(project, "{}", task="routed").bound == ("direct",)
    own = _goes(project, "{}", task="own")
    assert (own.queue, own.exchange, own.routing_key) == ("", "dx", "nobody")


def test_an_exchange_that_kombu_does_not_know_in_beat(project: Write) -> None:
    """On Redis a topic exchange is one once it was declared, by a message to a queue of it."""
    redis = "redis://127.0.0.1:1/0"
    named = _goes(project, '{"exchange": "tx", "routing_key": "a.b"}', redis)
    assert (named.exchange, isinstance(named.bound, tuple)) == ("tx", False)
    assert _goes(project, '{"queue": "topics"}', redis).bound == ("topics",)
    assert _goes(project, '{"exchange": "dx", "routing_key": "k"}', redis).bound == ("direct",)
