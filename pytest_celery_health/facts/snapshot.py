"""Everything that one look saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import TypeAlias, TypeVar

from pytest_celery_health.facts.drills import Drilled
from pytest_celery_health.facts.handlers import Handlers, Trials
from pytest_celery_health.facts.logs import Logs
from pytest_celery_health.facts.metrics import Scraped
from pytest_celery_health.facts.probes import Probed
from pytest_celery_health.facts.publishers import Published
from pytest_celery_health.facts.system import App, Beat, Queue, Queues, Schedule, Unacked, Workers
from pytest_celery_health.facts.unseen import Unseen

T = TypeVar("T")
Fact: TypeAlias = (Workers | Queues | Queue | Beat | Schedule | App | Unacked) | (
    Handlers | Trials | Drilled | Logs | Probed | Published | Scraped
)

#: Told to checks whose fact nobody put into the snapshot.
_NOT_LOOKED_AT = "it was not looked at"


@dataclass(frozen=True, slots=True, init=False)
class Snapshot:
    """Everything one look saw of one target. `now` is aware, and the time that ages are
    against, but for a heartbeat whose moment is its own."""

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

    def plus(self, facts: Iterable[Fact], unseen: Mapping[type, Unseen]) -> Snapshot:
        """This snapshot and more, of the same moment."""
        every = {**self.unseen, **unseen}
        return Snapshot(*self.facts, *facts, now=self.now, target=self.target, unseen=every)

    def fact(self, kind: type[T], **said: object) -> T | Unseen:
        """The fact of this kind, with these fields where there are several."""
        for fact in self.facts:
            if isinstance(fact, kind) and all(getattr(fact, name) == value for name, value in said.items()):
                return fact
        return self.unseen.get(kind, Unseen(_NOT_LOOKED_AT))

    @property
    def workers(self) -> Workers | Unseen:
        return self.fact(Workers)

    @property
    def schedule(self) -> Schedule | Unseen:
        return self.fact(Schedule)

    @property
    def app(self) -> App | Unseen:
        return self.fact(App)

    @property
    def handlers(self) -> Handlers | Unseen:
        return self.fact(Handlers)

    @property
    def trials(self) -> Trials | Unseen:
        return self.fact(Trials)

    @property
    def unacked(self) -> Unacked | Unseen:
        found = self.fact(Unacked)
        if isinstance(found, Unseen):
            queues = self.fact(Queues)
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
        named: set[str] = set()
        for fact in self.facts:
            if isinstance(fact, Queue):
                every[fact.name] = fact
            elif isinstance(fact, Queues):
                every.update((queue.name, queue) for queue in fact.seen)
                named.update(fact.named)
        if not every and Queues in self.unseen:
            return self.unseen[Queues]
        found: dict[str, Queue] = {}
        for name in names:
            if is_pattern(name):
                meant = (q for q in every.values() if q.name not in named)
                found.update((q.name, q) for q in meant if fnmatchcase(q.name, name))
            else:
                found[name] = every.get(name, Queue(name, ready=Unseen(_NOT_LOOKED_AT)))
        return tuple(found.values())

    @property
    def known_queues(self) -> frozenset[str]:
        """Every queue name that workers, the app or the broker's bindings know."""
        queues = self.fact(Queues)
        return queues.known if isinstance(queues, Queues) else frozenset()


def is_pattern(name: str) -> bool:
    """Whether a queue's name is a pattern."""
    return any(sign in name for sign in "*?[")
