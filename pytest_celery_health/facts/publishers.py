"""What became of calls that publish, while the broker was well, while it was not, and once it was again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Publishing:
    """One call, in one world: "healthy", or what was wrong with the broker.

    process: "new", in which nothing was published before, or "used".
    ended: "returned"; "refused", by what it returned, such as HTTP 503; "raised"; "hung"; or "died", and its
        process with it. took: seconds. error: what it raised, or returned. at: where it hung, or raised.
    backend: whether it waited for the result backend there.
    thread: it returned, and what hung is a thread or an asyncio task that it had started.
    arrived: the messages that the broker held in the end, by task; "" is none of Celery's.
    resent: how many of those are a message that had arrived before, with the same id.
    again: the same call once more, when the broker was well again; None if there was none.
    unseen: why it was not made; impossible: why this broker cannot be brought there.
    """

    world: str
    process: str = "used"
    ended: str = "returned"
    took: float = 0.0
    error: str = ""
    at: str = ""
    backend: bool = False
    arrived: Mapping[str, int] = field(default_factory=dict)
    again: Publishing | None = None
    unseen: str = ""
    impossible: str = ""
    thread: bool = False
    resent: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Published:
    """The calls of one function of the project. `then` published later what it had put aside.

    within: seconds after which a call was given up. broker: "redis" or "amqp".
    """

    healthy: Publishing
    seen: tuple[Publishing, ...] = ()
    call: str = ""
    then: str = ""
    within: float = 0.0
    broker: str = "redis"
