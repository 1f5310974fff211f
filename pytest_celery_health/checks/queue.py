"""Whether queues exist, are consumed, and stay under their thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from difflib import get_close_matches
from typing import ClassVar

from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import first_names, plural, silent
from pytest_celery_health.durations import Duration, seconds, spell
from pytest_celery_health.facts import (
    NOT_ASKED,
    Ask,
    AskQueues,
    AskWorkers,
    Progress,
    Queue,
    Queues,
    Snapshot,
    Unseen,
    is_pattern,
)
from pytest_celery_health.verdict import Finding

VISIBILITY_TIMEOUT = "visibility_timeout"


@dataclass(frozen=True)
class QueueDepth(Check):
    """Queues exist, are consumed and stay under their thresholds.

    queues: a name, a pattern ("billing*"), or several.
    ready_below: ready messages over all priorities must be fewer than this.
    consumers_at_least: consumers that each queue must have. Unless it is given, an empty queue may be
        without, but a backlog must have one; 0 allows a backlog that nobody listens to.
    moves_within: a backlog must move within this interval. It is sampled twice, only if there is one that
        somebody may consume, for as long as that on top of the look's deadline.
    oldest_unacked_below: the oldest unacknowledged message must be younger than this, or
        "visibility_timeout": younger than the transport's, after which a task runs twice. Redis only.

    Source: LLEN over the priority steps on Redis, a passive declare on AMQP; `active_queues`; for patterns
    kombu's bindings on Redis.
    """

    subject: ClassVar[str] = "queues"

    queues: tuple[str, ...] | str
    _: KW_ONLY
    ready_below: int | None = None
    consumers_at_least: int | None = None
    moves_within: Duration | None = None
    oldest_unacked_below: Duration | None = None

    def __post_init__(self) -> None:
        names = (self.queues,) if isinstance(self.queues, str) else tuple(self.queues)
        if not names or not all(name.strip() for name in names):
            raise ValueError("queues names no queue; write a name, a pattern or a list of them")
        object.__setattr__(self, "queues", names)
        if self.ready_below is not None and self.ready_below < 1:
            raise ValueError(f"ready_below is {self.ready_below}, which no queue can meet; write 1 or more")
        if self.consumers_at_least is not None and self.consumers_at_least < 0:
            raise ValueError(f"consumers_at_least is {self.consumers_at_least}; write 0 or more")
        self._in_seconds("moves_within")
        if self.moves_within == 0:
            raise ValueError("moves_within is 0; a backlog needs time to move")
        if self.oldest_unacked_below != VISIBILITY_TIMEOUT:
            limit = self.oldest_unacked_below
            if isinstance(limit, str) and get_close_matches(limit, [VISIBILITY_TIMEOUT]):
                raise ValueError(f'oldest_unacked_below is "{limit}"; did you mean "{VISIBILITY_TIMEOUT}"?')
            self._in_seconds("oldest_unacked_below")
        if self.oldest_unacked_below == 0:
            raise ValueError("oldest_unacked_below is 0, which no message can meet")

    def asks(self) -> Iterable[Ask]:
        yield AskWorkers(frozenset({"active_queues"}))
        over = None if self.moves_within is None else seconds(self.moves_within)
        consumed = over is not None and self.consumers_at_least != 0
        yield AskQueues(tuple(self.queues), self.oldest_unacked_below is not None, over, consumed)

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        queues = seen.queues(self.queues)
        if isinstance(queues, Unseen):
            yield Finding.unseen("", queues, hint=", ".join(self.queues))
            return
        every = seen.fact(Queues)
        unlisted, named = (every.unlisted, every.named) if isinstance(every, Queues) else (None, frozenset())
        for name in filter(is_pattern, self.queues):
            if unlisted is not None:
                yield Finding.unseen(name, unlisted)
            elif not seen.queues([name]):
                known = ", ".join(sorted(seen.known_queues - named)[:5]) or "none"
                yield Finding(None, name, f"no queue matches {name}", hint=f"known queues: {known}")
        for queue in queues:
            yield from self._judge_one(queue, seen)
        if self.oldest_unacked_below is not None:
            yield self._unacked(seen)

    def _judge_one(self, queue: Queue, seen: Snapshot) -> Iterator[Finding]:
        others = sorted(seen.known_queues - {queue.name})
        near = get_close_matches(queue.name, others, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        if queue.exists is False:
            known = f"known queues: {first_names(others)}" if others else ""
            yield Finding(False, queue.name, "does not exist", "an existing queue", hint or known)
            return
        if isinstance(queue.ready, Unseen):
            yield Finding.unseen(queue.name, queue.ready)
            return
        if not queue.ready and isinstance(queue.exists, Unseen) and queue.exists != NOT_ASKED:
            yield Finding.unseen(queue.name, queue.exists, hint=hint)
            return
        consumers, by = _consumers(queue, seen)
        if self.ready_below is not None or not self.consumers_at_least:
            yield self._ready(queue.name, queue.ready, by)
        yield from self._consumed(queue, queue.ready, consumers, by, seen)
        if self.moves_within is not None and queue.ready:
            yield self._moves(queue)

    def _ready(self, name: str, ready: int, by: str) -> Finding:
        return Finding(
            self.ready_below is None or ready < self.ready_below,
            name,
            f"holds {_messages(ready)}",
            "" if self.ready_below is None else f"below {self.ready_below:,}",
            by,
            {f"{name}.ready": ready},
        )

    def _consumed(
        self, queue: Queue, ready: int, consumers: int | Unseen, by: str, seen: Snapshot
    ) -> Iterator[Finding]:
        wanted = self.consumers_at_least
        if wanted == 0:
            return
        if isinstance(consumers, Unseen):
            if wanted or ready:
                yield Finding.unseen(f"{queue.name}'s consumers", consumers)
            return
        figures = {f"{queue.name}.consumers": consumers}
        unheard = _unheard(queue, seen)
        if wanted is None:
            sampled = self.moves_within is not None and isinstance(queue.progress, Progress)
            if ready and not consumers and unheard:
                # Who nobody saw may consume it, and a backlog that was watched tells whether somebody does.
                if not sampled:
                    holds = f"{queue.name} holds {_messages(ready)} that nobody is seen to consume"
                    hint = "" if self.moves_within is not None else "moves_within tells whether they move"
                    yield Finding(None, queue.name, f"{holds}, and {silent(unheard)}", hint=hint)
            elif ready and not consumers:
                yield Finding(
                    False,
                    queue.name,
                    f"holds {_messages(ready)} that nobody consumes",
                    "a consumer",
                    f"start a worker with -Q {queue.name}, or allow it with consumers_at_least = 0",
                    figures,
                )
            return
        has = f"has {_consumer_count(consumers)}"
        if consumers < wanted <= consumers + unheard:
            blind = f"{queue.name} {has}, and {silent(unheard)}; wanted at least {wanted}"
            yield Finding(None, queue.name, blind, hint=by if consumers else "", figures=figures)
            return
        yield Finding(
            consumers >= wanted,
            queue.name,
            has,
            f"at least {wanted}",
            by if consumers else "",
            figures,
        )

    def _moves(self, queue: Queue) -> Finding:
        progress = queue.progress
        if isinstance(progress, Unseen):
            return Finding.unseen(f"{queue.name}'s progress", progress)
        accepted = progress.accepted
        took = not isinstance(accepted, Unseen) and accepted > 0
        figures = {f"{queue.name}.moved": progress.ready_before - progress.ready_after}
        wanted = f"progress within {spell(seconds(self.moves_within or 0))}"
        over = spell(progress.interval)
        if progress.ready_after < progress.ready_before or progress.oldest_moved or took:
            seen = f"moved within {over}: {progress.ready_before:,}, then {_messages(progress.ready_after)}"
            return Finding(True, queue.name, seen, wanted, figures=figures)
        if isinstance(accepted, Unseen) and progress.oldest_moved is None:
            return Finding.unseen(f"{queue.name}'s progress", accepted)
        hint = "" if isinstance(accepted, Unseen) else "its workers accepted no task meanwhile"
        seen = f"stood still for {over} with {_messages(progress.ready_after)}"
        return Finding(False, queue.name, seen, wanted, hint, figures)

    def _unacked(self, seen: Snapshot) -> Finding:
        unacked = seen.unacked
        if isinstance(unacked, Unseen):
            return Finding.unseen("unacknowledged messages", unacked)
        if isinstance(unacked.oldest, Unseen):
            return Finding.unseen("unacknowledged messages", unacked.oldest)
        limit = self.oldest_unacked_below
        if limit == VISIBILITY_TIMEOUT:
            if isinstance(unacked.visibility_timeout, Unseen):
                return Finding.unseen("visibility_timeout", unacked.visibility_timeout)
            limit = unacked.visibility_timeout
        bound = seconds(limit or 0)
        if unacked.oldest is None:
            return Finding(True, "no message", "is unacknowledged", f"none older than {spell(bound)}")
        many = isinstance(unacked.count, int) and unacked.count > 1
        return Finding(
            unacked.oldest < bound,
            "a message",
            f"is {spell(unacked.oldest)} old and unacknowledged"
            + (f", the oldest of {unacked.count:,}" if many else ""),
            f"below {spell(bound)}",
            "of the whole Redis database; past visibility_timeout it is delivered again",
            {"unacked.oldest": unacked.oldest},
        )


def _messages(ready: int) -> str:
    return plural(ready, "ready message")


def _consumer_count(count: int) -> str:
    return plural(count, "consumer") if count else "no consumer"


def _unheard(queue: Queue, seen: Snapshot) -> int:
    """How many more may consume it than are seen to."""
    if not isinstance(queue.consumers, Unseen) or isinstance(seen.workers, Unseen):
        return 0
    return seen.workers.unheard


def _consumers(queue: Queue, seen: Snapshot) -> tuple[int | Unseen, str]:
    workers = seen.workers
    names = workers if isinstance(workers, Unseen) else workers.consuming(queue.name)
    if isinstance(names, Unseen):
        by = ""
        count: int | Unseen = names
    else:
        by = f"consumed by {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        by = by if names else "no worker consumes it"
        count = len(names)
    if not isinstance(queue.consumers, Unseen):
        count = queue.consumers
        if count and names == ():
            by = f"{_consumer_count(count)} by the broker's count"
    return count, by
