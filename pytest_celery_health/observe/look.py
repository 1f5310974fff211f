"""One bounded, read-only visit to a target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_celery_health.facts import Ask, Snapshot
from pytest_celery_health.observe.target import Target


@dataclass(frozen=True)
class Look:
    """What one visit saw, and what it cost.

    took: seconds. received: bytes of replies, before kombu's envelope is taken off and without the
    broker's framing. swept: leftovers of our own killed looks that this one removed.
    """

    snapshot: Snapshot
    took: float
    received: int = 0
    swept: int = 0


def look(target: Target, asks: Iterable[Ask], *, deadline: float, heartbeat: str = "") -> Look:
    """See every fact that `asks` name, within `deadline` seconds and a quarter of one.

    heartbeat is the source of beat's heartbeat for those asks that name none. Never raises for the
    target's trouble: what was not seen is `Unseen(why)`, passwords masked.
    """
    raise NotImplementedError
