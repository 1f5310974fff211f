"""`ping`: beat's own answer to remote control (Celery 5.7)."""

from __future__ import annotations

from datetime import datetime, timezone

from pytest_celery_health.facts import Beat, Unseen
from pytest_celery_health.observe.clock import epoch
from pytest_celery_health.observe.context import Context

FIRST = (5, 7)


def read(context: Context, rest: str, url: str) -> Beat | Unseen:
    """Now, if a beat answered. A beat whose scheduler is stalled stays silent."""
    del rest, url
    workers = context.workers
    if isinstance(workers, Unseen):
        return workers
    if workers.beats:
        now = datetime.fromtimestamp(epoch(), timezone.utc)
        return Beat(now, note=f"{', '.join(workers.beats)} answered ping")
    app = context.target.app
    if app is not None and _version(app.celery_version) < FIRST:
        return Unseen(
            f"beat answers ping from Celery 5.7 on; the app has {app.celery_version}: name another heartbeat",
            never=True,
        )
    return Unseen(
        "no beat answered ping: it is stopped, stalled, or without beat_enable_remote_control (Celery 5.7)"
    )


def _version(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.split(".")[:2]:
        digits = "".join(sign for sign in part if sign.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)
