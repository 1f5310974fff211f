"""What a look is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from pytest_celery_health.facts.drills import Drilled
from pytest_celery_health.facts.handlers import Handlers, Trials
from pytest_celery_health.facts.logs import Logs
from pytest_celery_health.facts.metrics import Scraped, ScrapePlan
from pytest_celery_health.facts.probes import Probe, Probed, Setting
from pytest_celery_health.facts.publishers import Published
from pytest_celery_health.facts.system import App, Beat, Queues, Schedule, Unacked, Workers


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing that a check wants to know."""

    #: The facts that answer it.
    kinds: ClassVar[tuple[type, ...]] = ()
    #: Whether it is found out by trying the app in processes of our own: no target is looked at for it.
    tried: ClassVar[bool] = False

    def joined(self, other: Ask) -> Ask | None:
        """One ask that holds both; None if they are two."""
        return self if self == other else None


def merge(asks: Iterable[Ask]) -> list[Ask]:
    """The fewest asks that hold all of `asks`."""
    found: list[Ask] = []
    for ask in asks:
        for index, other in enumerate(found):
            both = other.joined(ask)
            if both is not None:
                found[index] = both
                break
        else:
            found.append(ask)
    return found


@dataclass(frozen=True, slots=True)
class AskWorkers(Ask):
    """Who answers ping, and more of each: `stats`, `registered`, `active_queues`, `active`,
    `reserved`, `scheduled`, `clock`. `names` are expected and waited for."""

    kinds: ClassVar[tuple[type, ...]] = (Workers,)

    details: frozenset[str] = frozenset({"active_queues"})
    names: frozenset[str] = frozenset()
    at_least: int = 0

    def joined(self, other: Ask) -> AskWorkers | None:
        if not isinstance(other, AskWorkers):
            return None
        at_least = max(self.at_least, other.at_least)
        return AskWorkers(self.details | other.details, self.names | other.names, at_least)


@dataclass(frozen=True, slots=True)
class AskQueues(Ask):
    """The depth of these queues; a name may be a pattern (`billing*`), matched with the names that
    workers and the app know. `progress_over` (seconds) samples a backlog twice; with `consumed` only one that
    somebody may consume, as one that nobody consumes is wrong already."""

    kinds: ClassVar[tuple[type, ...]] = (Queues, Unacked)

    names: tuple[str, ...]
    unacked: bool = False
    progress_over: float | None = None
    consumed: bool = False

    def joined(self, other: Ask) -> AskQueues | None:
        if not isinstance(other, AskQueues):
            return None
        if (self.progress_over, self.consumed) != (other.progress_over, other.consumed):
            return None
        names = tuple(dict.fromkeys(self.names + other.names))
        return replace(self, names=names, unacked=self.unacked or other.unacked)


@dataclass(frozen=True, slots=True)
class AskBeat(Ask):
    """When beat was last seen, by `source`; "" is the contract's heartbeat, else beat's own ping.
    `url` is where a Redis source looks; "" is the broker."""

    kinds: ClassVar[tuple[type, ...]] = (Beat,)

    source: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class AskSchedule(Ask):
    """The app's schedule."""

    kinds: ClassVar[tuple[type, ...]] = (Schedule,)


@dataclass(frozen=True, slots=True)
class AskApp(Ask):
    """The app's own tasks."""

    kinds: ClassVar[tuple[type, ...]] = (App,)


@dataclass(frozen=True, slots=True)
class AskHandlers(Ask):
    """The receivers of every signal, of an app that starts as a worker in a sealed process of its own."""

    kinds: ClassVar[tuple[type, ...]] = (Handlers,)
    tried: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class AskTrials(Ask):
    """What the project's handlers of signals about tasks do with payloads that are hard on them, and those of
    `names` that are not its own.

    within: seconds after which a call may be given up. secrets: names of arguments whose values are secret.
    """

    kinds: ClassVar[tuple[type, ...]] = (Trials,)
    tried: ClassVar[bool] = True

    names: frozenset[str] = frozenset()
    within: float = 2.0
    secrets: frozenset[str] = frozenset()

    def joined(self, other: Ask) -> AskTrials | None:
        if not isinstance(other, AskTrials):
            return None
        within = max(self.within, other.within)
        return AskTrials(self.names | other.names, within, self.secrets | other.secrets)


@dataclass(frozen=True, slots=True)
class AskDrills(Ask):
    """What leaves the app's worker when a task comes to each of these ends.

    task: the task that comes to them; "" is a task of the drill's own. pool: "" is the app's choice.
    """

    kinds: ClassVar[tuple[type, ...]] = (Drilled,)
    tried: ClassVar[bool] = True

    ends: tuple[str, ...]
    task: str = ""
    pool: str = ""

    def joined(self, other: Ask) -> AskDrills | None:
        if not isinstance(other, AskDrills) or (self.task, self.pool) != (other.task, other.pool):
            return None
        return AskDrills(tuple(dict.fromkeys(self.ends + other.ends)), self.task, self.pool)


@dataclass(frozen=True, slots=True)
class AskMetrics(Ask):
    """What a scrape shows of the app's metrics, set in a real worker."""

    kinds: ClassVar[tuple[type, ...]] = (Scraped,)
    tried: ClassVar[bool] = True

    plan: ScrapePlan


@dataclass(frozen=True, slots=True)
class AskLogs(Ask):
    """What becomes of log records in the app's worker.

    loggers: that are tried beside those that its own modules use, and Celery's. pool: "" is the app's choice.
    """

    kinds: ClassVar[tuple[type, ...]] = (Logs,)
    tried: ClassVar[bool] = True

    loggers: tuple[str, ...] = ()
    pool: str = ""

    def joined(self, other: Ask) -> AskLogs | None:
        if not isinstance(other, AskLogs) or self.pool != other.pool:
            return None
        return AskLogs(tuple(dict.fromkeys(self.loggers + other.loggers)), self.pool)


@dataclass(frozen=True, slots=True)
class AskProbe(Ask):
    """What a health check of the project says in the healthy world, and in each of these.

    within: seconds in which it should answer; it is killed some time later.
    """

    kinds: ClassVar[tuple[type, ...]] = (Probed,)
    tried: ClassVar[bool] = True

    probe: Probe
    worlds: tuple[str, ...]
    within: float
    setting: Setting

    def joined(self, other: Ask) -> AskProbe | None:
        if not isinstance(other, AskProbe) or (self.probe, self.setting) != (other.probe, other.setting):
            return None
        worlds = tuple(dict.fromkeys(self.worlds + other.worlds))
        return AskProbe(self.probe, worlds, max(self.within, other.within), self.setting)


@dataclass(frozen=True, slots=True)
class AskPublishers(Ask):
    """What becomes of calls of a function of the project that publishes, "package.module:function".

    then: a function that publishes later what the call has put aside, or "". worlds: names of faults of the
    broker. within: seconds after which a call may be given up.
    """

    kinds: ClassVar[tuple[type, ...]] = (Published,)
    tried: ClassVar[bool] = True

    call: str
    then: str
    worlds: tuple[str, ...]
    within: float

    def joined(self, other: Ask) -> AskPublishers | None:
        if not isinstance(other, AskPublishers) or (self.call, self.then) != (other.call, other.then):
            return None
        worlds = tuple(dict.fromkeys(self.worlds + other.worlds))
        return AskPublishers(self.call, self.then, worlds, max(self.within, other.within))
