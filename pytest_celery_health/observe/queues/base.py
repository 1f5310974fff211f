"""What a reader of queues is: one per broker family, one file each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from pytest_celery_health.facts import Queue, Unacked, Unseen
from pytest_celery_health.observe.clock import Deadline

#: A digest of the oldest message of each list of a queue, None for an empty list.
Marks: TypeAlias = tuple[bytes | None, ...]

NO_TIME = Unseen("the deadline passed before it was looked at")


@dataclass(frozen=True, slots=True)
class Known:
    """Queue names that are known without asking for each.

    consumed: by workers that answered. declared: by the app, None when there is no app at hand.
    exchanges: to which a worker of the app may have bound a queue, beside the queue's own name.
    bound: by anybody, as the broker tells; asked only for patterns.
    """

    consumed: frozenset[str] = frozenset()
    declared: frozenset[str] | None = None
    exchanges: tuple[str, ...] = ("celery",)
    bound: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        return self.consumed | (self.declared or frozenset()) | self.bound


class Reader(ABC):
    """Reads queues of one broker family over `connection` (a bounded `kombu.Connection`), in as few round
    trips as its protocol allows, and never declares, takes or changes anything.

    A failure of one queue is that queue's `Unseen`; a failure of the connection is raised.
    """

    #: `driver_type` of the kombu transports that it serves.
    drivers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, connection: Any, deadline: Deadline, received: Callable[[int], None]) -> None:
        self.connection = connection
        self.deadline = deadline
        self.received = received

    @abstractmethod
    def depths(self, names: Sequence[str], known: Known, *, unacked: bool = False) -> Depths:
        """The queues of these names, in this order, and what is unacknowledged if `unacked`."""

    def bound(self) -> frozenset[str] | Unseen:
        """The names of all queues that the broker's bindings tell; none where it cannot list them."""
        return frozenset()

    def taking(self, exchange: str, routing_key: str) -> tuple[str, ...] | Unseen:
        """The queues to which the broker gives a message of this exchange and routing key."""
        del exchange, routing_key
        return Unseen(f"{self.connection.transport.driver_type} does not list bindings")

    def oldest(self, names: Iterable[str]) -> Mapping[str, Marks]:
        """A mark of the oldest message in each list of a queue; none where the broker cannot show it."""
        del names
        return {}


@dataclass(frozen=True, slots=True)
class Depths:
    """`queues` in the order asked for; `unacked` of the whole broker."""

    queues: tuple[Queue, ...]
    unacked: Unacked | Unseen
