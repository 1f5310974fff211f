"""What left a worker while its tasks came to their ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Output:
    """What somebody, or something, can take notice of.

    kind: "request", "log" (a record of WARNING or above) or "metric".
    name: the host, the logger, or the metric. count: how many there were.
    lost: why nobody took notice: the request was refused, no log handler took the record; "" if one could.
    """

    kind: str
    name: str
    count: int = 1
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """A task that came to an end in a real worker, and what left the worker then.

    errors: what handlers did wrong meanwhile, such as "shop.signals:alert raised KeyError: 'x'".
    unseen: why the end was not reached; impossible: why this pool, or this Celery, does not know it.
    """

    end: str
    task: str = ""
    pool: str = ""
    outputs: tuple[Output, ...] = ()
    errors: tuple[str, ...] = ()
    unseen: str = ""
    impossible: str = ""


@dataclass(frozen=True, slots=True)
class Drilled:
    """The ends that one task was taken to, or a task of the drill's own where `task` is ""."""

    seen: tuple[Ending, ...] = ()
    task: str = ""
    pool: str = ""
