"""Where Celery sends a routed message: to a queue by its name, or to an exchange with a routing key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from celery import Celery
from kombu.transport.virtual.exchange import STANDARD_EXCHANGE_TYPES

from pytest_celery_health.project.child.message import driver_of


def queue_name(queue: Any) -> str:
    """The name of what a route or an entry has as its queue."""
    return str(getattr(queue, "name", queue))


def destination(app: Celery, sent: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an `Entry` for what the router made of its options, as `send_task` reads them.

    With a direct exchange, an exchange or a routing key alone counts for nothing: the queue gets the message.
    """
    queue, exchange, key = (sent.get(option) for option in ("queue", "exchange", "routing_key"))
    if queue is None and exchange is None:
        queue = app.amqp.default_queue
    if isinstance(queue, str):
        queue = app.amqp.queues[queue]
    own: Any = getattr(queue, "exchange", None)
    kind = sent.get("exchange_type") or getattr(own, "type", "direct")
    if (not exchange or not key) and kind == "direct":
        return {"queue": queue_name(queue or "")}
    if exchange is None:
        exchange = own.name or app.amqp.default_exchange
        key = key or getattr(queue, "routing_key", "") or app.conf.task_default_routing_key
    name, key = queue_name(exchange), str(key or "")
    if not name:
        return {}
    # A virtual transport takes for direct what its client did not declare; a message declares its queue.
    typed = driver_of(app) == "amqp" or getattr(own, "name", None) == name
    found = [each.name for each in app.amqp.queues.values() if any(_takes(each, name, key, typed))]
    goes_to = {"exchange": name, "routing_key": key}
    return {**goes_to, "bound": sorted(found)} if found else goes_to


def _takes(queue: Any, name: str, key: str, typed: bool) -> Iterator[bool]:
    """Whether each of a queue's bindings gives it a message, by kombu's own ways."""
    for binding in (queue, *queue.bindings):
        exchange = binding.exchange
        kind = STANDARD_EXCHANGE_TYPES.get(exchange.type) if exchange and exchange.name == name else None
        if kind is not None and (typed or exchange.type == "direct"):
            rules = kind(None)
            row = rules.prepare_bind(queue.name, name, binding.routing_key or "", {})
            yield bool(rules.lookup([row], name, key, None))
