"""What can be seen of a Celery system: immutable facts, and what a look is asked for.

Standard library only. What could not be seen is `Unseen(why)`: never zero, never empty, never
healthy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that could not be seen, and why. `never`: this kind of target cannot show it at all."""

    why: str
    never: bool = False


NOT_ASKED = Unseen("no check asked for it")


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
    subscribed: int | Unseen = Unseen("this broker does not count mailboxes")
    silent: frozenset[str] = frozenset()

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
    is unacknowledged."""

    seen: tuple[Queue, ...] = ()
    known: frozenset[str] = frozenset()
    unacked: Unacked | Unseen = NOT_ASKED


@dataclass(frozen=True, slots=True)
class Beat:
    """When beat was last seen by one source (`redis:KEY`, `file:PATH`, `redbeat`, `ping`, `call:m:f`), in
    the Redis of `url` where that is not the broker.

    `note` says how the time was come by, for a reader. `gone` says what proves that no beat runs at all.
    """

    last_seen: datetime | Unseen
    source: str = ""
    note: str = ""
    gone: str = ""
    url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the schedule. `problem` says why its arguments do not fit its task."""

    name: str
    task: str
    registered: bool = True
    queue: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What beat is to send, as the app configures it."""

    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class App:
    """What the app itself says: the names of the tasks that it defines (Celery's own excluded)."""

    name: str = ""
    tasks: frozenset[str] | Unseen = NOT_ASKED


@dataclass(frozen=True, slots=True)
class Handler:
    """One receiver that the code of a worker connects to one signal of Celery.

    name: "package.module:qualified.name". where: "file:line" of the call that connects it.
    sender: as a reader knows it; "" is every sender. sender_kind: "task" (one of the app's), "text",
        "class", "app", "consumer", "worker", ..., "" for every sender.
    kind: "function", "lambda", "method", "partial", "object", "class"; "async def" or "generator" for what
        does not run when it is called.
    needs: parameters without a default. by_position: those of them that no keyword can fill.
    state: "connected", "collected" (by the garbage collector), "shadowed" (another handler has its
        place), or "disconnected".
    code: handlers of one number are the same code; 0 is like no other.
    own: whether the project's own code is it or connects it.
    """

    signal: str
    name: str
    where: str = ""
    sender: str = ""
    sender_kind: str = ""
    kind: str = "function"
    needs: tuple[str, ...] = ()
    by_position: tuple[str, ...] = ()
    weak: bool = True
    retry: bool = False
    dispatch_uid: str = ""
    state: str = "connected"
    code: int = 0
    own: bool = True


@dataclass(frozen=True, slots=True)
class Handlers:
    """The receivers of every signal as a starting worker has them, in the order of their connecting.

    modules: what was imported. version: of the Celery that would send.
    """

    seen: tuple[Handler, ...] = ()
    modules: frozenset[str] = frozenset()
    version: str = ""


@dataclass(frozen=True, slots=True)
class Leak:
    """A secret that left in clear: the value of the argument `key`, or what the text of an exception held for
    the key "exception". to: the host of the request that held it; "" for a log record."""

    key: str
    to: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a handler with a payload that Celery sends, every HTTP request answered in its process.

    task: whose signal it was. payload: what was special about it, in words, or "".
    retries: of the task's request, where the signal is task_retry; most: how many Celery makes of this task
        at most, None for no end.
    at_fault: the host of the alert server that did not do its work, or "".
    does: what it was seen to do: the hosts it asked, "log LEVEL", "metric NAME", "a task".
    failed: the hosts that gave it no answer, or an error's.
    took: seconds, the waiting for a server that hangs included. It was not really waited for.
    unbounded: the hosts that it asked without a timeout.
    stuck: where it was ("file:line") when it was given up; "" when it ended.
    error: what it did, such as "raised KeyError: 'x'". doubt: why that may not be its own mistake.
    logged: whether a log record of WARNING or above was written.
    """

    task: str = ""
    payload: str = ""
    retries: int | None = None
    most: int | None = None
    at_fault: str = ""
    does: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    took: float = 0.0
    unbounded: tuple[str, ...] = ()
    stuck: str = ""
    error: str = ""
    doubt: str = ""
    logged: bool = False
    leaks: tuple[Leak, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """The calls of one handler for one signal.

    name, where, own: as of a `Handler`. unseen: why it was not called, or not any more.
    skipped: "file:line" of its code that no call came to, for one that was not seen to do anything.
    would: the name of no task for which it would do something.
    """

    signal: str
    name: str
    where: str = ""
    own: bool = True
    calls: tuple[Call, ...] = ()
    unseen: str = ""
    skipped: str = ""
    would: str = ""


@dataclass(frozen=True, slots=True)
class Trials:
    """Handlers of signals about tasks, put to the test. tasks: how many the app defines."""

    seen: tuple[Trial, ...] = ()
    tasks: int = 0


Fact: TypeAlias = Workers | Queues | Queue | Beat | Schedule | App | Unacked | Handlers | Trials


@dataclass(frozen=True, slots=True)
class AskWorkers:
    """Who answers ping, and more of each: `stats`, `registered`, `active_queues`, `active`,
    `reserved`, `scheduled`, `clock`. `names` are expected and waited for."""

    details: frozenset[str] = frozenset({"active_queues"})
    names: frozenset[str] = frozenset()
    at_least: int = 0


@dataclass(frozen=True, slots=True)
class AskQueues:
    """The depth of these queues; a name may be a pattern (`billing*`), matched with the names that
    workers and the app know. `progress_over` (seconds) samples a backlog twice."""

    names: tuple[str, ...]
    unacked: bool = False
    progress_over: float | None = None


@dataclass(frozen=True, slots=True)
class AskBeat:
    """When beat was last seen, by `source`; "" is the contract's heartbeat, else beat's own ping.
    `url` is where a Redis source looks; "" is the broker."""

    source: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class AskSchedule:
    """The app's schedule."""


@dataclass(frozen=True, slots=True)
class AskApp:
    """The app's own tasks."""


@dataclass(frozen=True, slots=True)
class AskHandlers:
    """The receivers of every signal, of an app that starts as a worker in a sealed process of its own."""


@dataclass(frozen=True, slots=True)
class AskTrials:
    """What the project's handlers of signals about tasks do with payloads that are hard on them, and those of
    `names` that are not its own.

    within: seconds after which a call may be given up. secrets: names of arguments whose values are secret.
    """

    names: frozenset[str] = frozenset()
    within: float = 2.0
    secrets: frozenset[str] = frozenset()


Ask: TypeAlias = AskWorkers | AskQueues | AskBeat | AskSchedule | AskApp | AskHandlers | AskTrials

#: Told to checks whose fact nobody put into the snapshot.
_NOT_LOOKED_AT = "it was not looked at"


@dataclass(frozen=True, slots=True, init=False)
class Snapshot:
    """Everything one look saw of one target. `now` is aware, and the time all ages are against."""

    facts: tuple[Fact, ...]
    now: datetime
    target: str = ""
    unseen: Mapping[type, Unseen] = field(default_factory=dict)

    def __init__(
        self,
        *facts: Fact,
        now: datetime | None = None,
        target: str = "",
        unseen: Mapping[type, Unseen] | None = None,
    ) -> None:
        if now is not None and now.tzinfo is None:
            raise ValueError(f"now is {now.isoformat()}, without a time zone; ages would be off by hours")
        object.__setattr__(self, "facts", facts)
        object.__setattr__(self, "now", now or datetime.now(timezone.utc))
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "unseen", dict(unseen or {}))

    def _one(self, kind: type[T]) -> T | Unseen:
        for fact in self.facts:
            if isinstance(fact, kind):
                return fact
        return self.unseen.get(kind, Unseen(_NOT_LOOKED_AT))

    @property
    def workers(self) -> Workers | Unseen:
        return self._one(Workers)

    @property
    def schedule(self) -> Schedule | Unseen:
        return self._one(Schedule)

    @property
    def app(self) -> App | Unseen:
        return self._one(App)

    @property
    def handlers(self) -> Handlers | Unseen:
        return self._one(Handlers)

    @property
    def trials(self) -> Trials | Unseen:
        return self._one(Trials)

    @property
    def unacked(self) -> Unacked | Unseen:
        found = self._one(Unacked)
        if isinstance(found, Unseen):
            queues = self._one(Queues)
            if isinstance(queues, Queues):
                return queues.unacked
        return found

    def beat(self, source: str = "", url: str = "") -> Beat | Unseen:
        """The beat fact of `source` and `url`; an unnamed source is the only one there is."""
        for fact in self.facts:
            if isinstance(fact, Beat) and (not source or (fact.source, fact.url) == (source, url)):
                return fact
        return self.unseen.get(Beat, Unseen(_NOT_LOOKED_AT))

    def queues(self, names: Iterable[str]) -> tuple[Queue, ...] | Unseen:
        """The queues of these names and patterns, in that order, each once."""
        every: dict[str, Queue] = {}
        for fact in self.facts:
            if isinstance(fact, Queue):
                every[fact.name] = fact
            elif isinstance(fact, Queues):
                every.update((queue.name, queue) for queue in fact.seen)
        if not every and Queues in self.unseen:
            return self.unseen[Queues]
        found: dict[str, Queue] = {}
        for name in names:
            if is_pattern(name):
                found.update((q.name, q) for q in every.values() if fnmatchcase(q.name, name))
            else:
                found[name] = every.get(name, Queue(name, ready=Unseen(_NOT_LOOKED_AT)))
        return tuple(found.values())

    @property
    def known_queues(self) -> frozenset[str]:
        """Every queue name that workers or the app know."""
        queues = self._one(Queues)
        return queues.known if isinstance(queues, Queues) else frozenset()


def is_pattern(name: str) -> bool:
    """Whether a queue's name is a pattern."""
    return any(sign in name for sign in "*?[")
