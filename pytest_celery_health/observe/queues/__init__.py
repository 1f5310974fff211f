"""How deep queues are, by broker family. A new family is one file and one line here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from pytest_celery_health.facts import (
    NOT_ASKED,
    AskQueues,
    Queue,
    Queues,
    Schedule,
    Unseen,
    Workers,
    is_pattern,
)
from pytest_celery_health.observe.context import Context
from pytest_celery_health.observe.queues.amqp import AmqpQueues
from pytest_celery_health.observe.queues.base import Depths, Known, Reader
from pytest_celery_health.observe.queues.memory import MemoryQueues
from pytest_celery_health.observe.queues.other import OtherQueues
from pytest_celery_health.observe.queues.progress import watch
from pytest_celery_health.observe.queues.redis import RedisQueues
from pytest_celery_health.project.info import AppInfo

_NOT_WATCHED = Unseen("nobody consumes it, so it was not watched")

READERS: dict[str, type[Reader]] = {
    driver: reader for reader in (RedisQueues, AmqpQueues, MemoryQueues) for driver in reader.drivers
}

__all__ = ["READERS", "Depths", "Known", "Reader", "read", "reader_for", "watch", "with_bindings"]


def reader_for(context: Context) -> Reader:
    """The reader of the broker family of the context's connection, which must be open."""
    connection: Any = context.connection
    kind = READERS.get(str(connection.transport.driver_type), OtherQueues)
    return kind(connection, context.deadline, context.received)


def read(context: Context, asks: Sequence[AskQueues]) -> Queues | Unseen:
    """Everything that `asks` ask of queues. Raises what the connection raises."""
    if isinstance(context.connection, Unseen):
        return context.connection
    known = _known(context.workers, context.target.app)
    asked = [name for ask in asks for name in ask.names]
    reader = reader_for(context)
    unlisted: Unseen | None = None
    if any(map(is_pattern, asked)):
        bound = reader.bound()
        if isinstance(bound, Unseen):
            unlisted = bound
        else:
            known = replace(known, bound=_of_tasks(bound, context.target.event_exchange))
    names = _matching(asked, known)
    meant = {*_matching(filter(is_pattern, asked), known)}
    depths = reader.depths(names, known, unacked=any(ask.unacked for ask in asks))
    seen = {queue.name: queue for queue in depths.queues}
    overs: dict[str, float] = {}
    for ask in asks:
        if ask.progress_over is None:
            continue
        for name in _matching(ask.names, known):
            if ask.consumed and _nobody_consumes(seen[name], context.workers):
                seen[name] = replace(seen[name], progress=_NOT_WATCHED)
            else:
                overs[name] = max(ask.progress_over, overs.get(name, 0.0))
    if overs:
        again = partial(context.again, frozenset({"active_queues", "stats"}))
        watched = [seen[name] for name in overs]
        sampled = watch(reader, watched, overs, known, context.workers, again)
        seen.update((queue.name, queue) for queue in sampled)
    return Queues(
        tuple(seen.values()),
        _existing(seen.values(), known),
        depths.unacked,
        unlisted,
        frozenset(names) - known.names - meant,
    )


def _nobody_consumes(queue: Queue, workers: Workers | Unseen) -> bool:
    """Whether it is certain. A mailbox that is silent may be a consumer's."""
    if not isinstance(queue.consumers, Unseen):
        return not queue.consumers
    if isinstance(workers, Unseen) or isinstance(workers.subscribed, Unseen):
        return False
    return workers.consuming(queue.name) == () and not workers.unheard


def with_bindings(context: Context, schedule: Schedule) -> Schedule:
    """The schedule, with the queues that the broker binds where the app binds none.

    Raises what the connection raises.
    """
    entries = schedule.entries
    by_key = [entry for entry in entries if entry.exchange and entry.bound == NOT_ASKED]
    lost = {(entry.exchange, entry.routing_key) for entry in by_key}
    if not lost:
        return schedule
    connection = context.connection
    reader = None if isinstance(connection, Unseen) else reader_for(context)
    bound = {pair: connection if reader is None else reader.taking(*pair) for pair in sorted(lost)}
    return Schedule(
        tuple(
            replace(entry, bound=bound.get((entry.exchange, entry.routing_key), entry.bound))
            for entry in entries
        )
    )


def _known(workers: Workers | Unseen, app: AppInfo | None) -> Known:
    consumed: set[str] = set()
    if not isinstance(workers, Unseen):
        for worker in workers.answered:
            if not isinstance(worker.queues, Unseen):
                consumed.update(worker.queues)
    known = Known(frozenset(consumed))
    if app is None:
        return known
    return replace(
        known,
        declared=frozenset((*app.queues, app.default_queue)),
        exchanges=tuple(dict.fromkeys((app.default_queue, *known.exchanges))),
    )


def _of_tasks(names: Iterable[str], event_exchange: str) -> frozenset[str]:
    """Without those of remote control and of events, which whoever asks leaves behind."""
    events = tuple(f"{exchange}." for exchange in ("celeryev", event_exchange))
    return frozenset(name for name in names if not name.endswith(".pidbox") and not name.startswith(events))


def _matching(names: Iterable[str], known: Known) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for name in names:
        if is_pattern(name):
            found.update(dict.fromkeys(sorted(one for one in known.names if fnmatchcase(one, name))))
        else:
            found[name] = None
    return tuple(found)


def _existing(seen: Iterable[Queue], known: Known) -> frozenset[str]:
    gone = {queue.name for queue in seen if queue.exists is False}
    return (known.names | {queue.name for queue in seen if queue.exists is True}) - gone
