"""What a look sees of a running system: workers, queues, beat, and what its app says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from pytest_celery_health.facts.unseen import NOT_ASKED, NOT_COUNTED, Unseen


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a worker holds. Its arguments are never kept.

    `running_for` is in seconds of the looking machine's clock; None when it has not started.
    """

    name: str
    running_for: float | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Worker:
    """One node name that answered remote control.

    Durations are seconds. `clock_offset` is positive when the worker's clock is ahead of ours.
    `accepted` counts the tasks it accepted since its start, by name. `answers` counts the replies
    under this name: two mean two workers of one name. `malformed` says what was wrong with a reply.
    """

    name: str
    answers: int = 1
    queues: tuple[str, ...] | Unseen = NOT_ASKED
    tasks: frozenset[str] | Unseen = NOT_ASKED
    pool: str | Unseen = NOT_ASKED
    pool_size: int | Unseen = NOT_ASKED
    uptime: float | Unseen = NOT_ASKED
    version: str | Unseen = NOT_ASKED
    accepted: Mapping[str, int] | Unseen = NOT_ASKED
    clock_offset: float | Unseen = NOT_ASKED
    active: tuple[RunningTask, ...] | Unseen = NOT_ASKED
    reserved: tuple[RunningTask, ...] | Unseen = NOT_ASKED
    scheduled: tuple[RunningTask, ...] | Unseen = NOT_ASKED
    malformed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Workers:
    """Who answered. Beat that answers ping is in `beats`, never in `answered`.

    `subscribed` counts the mailboxes that the broker delivered to, where it can tell; `silent` names
    those of them that did not answer, as far as names are known.
    """

    answered: tuple[Worker, ...] = ()
    beats: tuple[str, ...] = ()
    subscribed: int | Unseen = NOT_COUNTED
    silent: frozenset[str] = frozenset()

    @property
    def unheard(self) -> int:
        """How many mailboxes did not answer: of busy solo workers, of frozen ones, of a stalled beat. 0 where
        the broker does not count them."""
        if isinstance(self.subscribed, Unseen):
            return 0
        answers = sum(worker.answers for worker in self.answered) + len(self.beats)
        return max(0, self.subscribed - answers)

    def consuming(self, queue: str) -> tuple[str, ...] | Unseen:
        """Names of the workers that consume `queue`, or why that is not known."""
        names = []
        blind: Unseen | None = None
        for worker in self.answered:
            if isinstance(worker.queues, Unseen):
                blind = worker.queues
            elif queue in worker.queues:
                names.append(worker.name)
        return blind if blind is not None and not names else tuple(names)


@dataclass(frozen=True, slots=True)
class Progress:
    """A backlog seen twice, `interval` seconds apart.

    `oldest_moved` is None where the broker cannot show the oldest message without taking it.
    `accepted` counts the tasks that the queue's workers accepted in between.
    """

    interval: float
    ready_before: int
    ready_after: int
    oldest_moved: bool | None
    accepted: int | Unseen


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue. `ready` is over all priorities, and a lower bound of the backlog: what workers hold
    (unacknowledged, prefetched, with an ETA) is in no broker's ready count."""

    name: str
    ready: int | Unseen = NOT_ASKED
    exists: bool | Unseen = NOT_ASKED
    consumers: int | Unseen = NOT_ASKED
    progress: Progress | Unseen = NOT_ASKED


@dataclass(frozen=True, slots=True)
class Unacked:
    """What workers took and did not acknowledge, in the whole Redis database. Ages in seconds."""

    count: int | Unseen = NOT_ASKED
    oldest: float | Unseen | None = NOT_ASKED
    visibility_timeout: float | Unseen = NOT_ASKED


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues that were asked for, those that a pattern found among all known names, and what
    is unacknowledged. `unlisted` says why the broker's own names, which a pattern may mean, are not known.
    `named` are those of `seen` that are there only because a check named them: no pattern means them."""

    seen: tuple[Queue, ...] = ()
    known: frozenset[str] = frozenset()
    unacked: Unacked | Unseen = NOT_ASKED
    unlisted: Unseen | None = None
    named: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Beat:
    """When beat was last seen by one source (`redis:KEY`, `file:PATH`, `redbeat`, `ping`, `call:m:f`), in
    the Redis of `url` where that is not the broker.

    `note` says how the time was come by, for a reader. `gone` says what proves that no beat runs at all.
    `read_at` is when it was read, to which its age is; None is the moment of the whole snapshot.
    """

    last_seen: datetime | Unseen
    source: str = ""
    note: str = ""
    gone: str = ""
    url: str = field(default="", repr=False)
    read_at: datetime | None = field(default=None, compare=False, repr=False)

    def age(self, last_seen: datetime, now: datetime) -> float:
        """Seconds from `last_seen`, which must be aware, to when it was read, or else to `now`."""
        # In UTC: two times of one zone are subtracted by their wall clocks, an hour off where DST changes.
        read_at = (self.read_at or now).astimezone(timezone.utc)
        return (read_at - last_seen.astimezone(timezone.utc)).total_seconds()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the schedule. `problem` says why its arguments do not fit its task; `malformed` what no
    beat could use of the entry itself, and `wanted` what it should be.

    `queue` is where its message goes by name. One that goes to an `exchange` with a `routing_key` has none,
    and `bound` are the queues that get it: by the app's own bindings, else by the broker's.
    """

    name: str
    task: str
    registered: bool = True
    queue: str = ""
    problem: str = ""
    malformed: str = ""
    wanted: str = ""
    exchange: str = ""
    routing_key: str = ""
    bound: tuple[str, ...] | Unseen = NOT_ASKED


@dataclass(frozen=True, slots=True)
class Schedule:
    """What beat is to send, as the app configures it."""

    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class App:
    """What the app itself says: the names of the tasks that it defines (Celery's own excluded)."""

    name: str = ""
    tasks: frozenset[str] | Unseen = NOT_ASKED
