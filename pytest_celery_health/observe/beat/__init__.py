"""When beat was last seen, by source. A new source is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pytest_celery_health.facts import Beat, Unseen
from pytest_celery_health.observe.beat import call, file, ping, redbeat, redis_key
from pytest_celery_health.observe.context import Context

#: What reads a source, by its scheme; it is given what follows the colon, and the url.
SOURCES: dict[str, Callable[[Context, str, str], Beat | Unseen]] = {
    "call": call.read,
    "file": file.read,
    "ping": ping.read,
    "redbeat": redbeat.read,
    "redis": redis_key.read,
}


def read(context: Context, source: str, url: str) -> Beat:
    """When `source` last saw beat; "" is beat's own ping. Where it cannot be told, `last_seen` says why."""
    scheme, _, rest = (source or "ping").partition(":")
    reader = SOURCES.get(scheme)
    if reader is None:
        return Beat(Unseen(f"{scheme} is not a source of a heartbeat: {', '.join(SOURCES)}"), source)
    found = reader(context, rest, url)
    return replace(found, source=source) if isinstance(found, Beat) else Beat(found, source)
