"""What a reader of queues or of beat gets to look with. The look calls

    queues.read(context: Context, asks: Sequence[AskQueues]) -> Queues | Unseen
    beat.read(context: Context, source: str, url: str) -> Beat | Unseen

the latter once for each source. What they raise becomes an `Unseen` that explains it, masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_celery_health.facts import Unseen, Workers
from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.observe.sockets import Sockets
from pytest_celery_health.observe.target import Target

if TYPE_CHECKING:
    from kombu.connection import Connection


def _nothing(_: int) -> None:
    """Counts nothing."""


@dataclass(frozen=True)
class Context:
    """One look from the inside. Everything runs in the look's own thread, one reader after the other,
    but for the project's functions (`call:`).

    connection: open, and the look's own; `connection.default_channel` is there already. Unseen when the
        broker could not be reached or there is none: readers that need no broker read on.
    workers: what remote control found before, `active_queues` always asked for when a queue is.
    deadline: of the whole look. No wait may be longer than `deadline.left()`.
    again: asks the workers once more for these details, for facts that need two looks.
    received: is told how many bytes of replies came.
    sockets: makes those of a further server, which the look shuts at its end.
    """

    target: Target
    connection: Connection | Unseen = field(repr=False)
    deadline: Deadline
    workers: Workers | Unseen
    again: Callable[[frozenset[str]], Workers | Unseen] = field(repr=False)
    received: Callable[[int], None] = field(default=_nothing, repr=False)
    sockets: Callable[[], Sockets] = field(default=Sockets, repr=False)
