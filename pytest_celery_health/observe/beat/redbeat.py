"""`redbeat`: the schedule and the lock that celery-redbeat keeps in Redis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from pytest_celery_health.facts import Beat, Unseen
from pytest_celery_health.observe.beat.redis import client, unread
from pytest_celery_health.observe.context import Context
from pytest_celery_health.observe.trouble import BAFFLED

#: What PTTL answers for a key that does not exist.
NO_KEY = -2

#: Entries whose last run is read.
MOST = 1000

_PARTS = ("year", "month", "day", "hour", "minute", "second", "microsecond")


def read(context: Context, rest: str, url: str) -> Beat | Unseen:
    """The latest of the entries' last runs; where `redbeat_lock_timeout` is configured, also of beat's last
    tick, at which it extends its lock. The lock is looked at, never taken.

    Keys and server are the app's `redbeat_*` settings; `url` goes before `redbeat_redis_url`.
    """
    del rest
    from redis import RedisError

    if context.target.sealed:
        return Unseen("the sandbox's beat keeps its schedule in a file, not in redbeat", never=True)
    conf: Mapping[str, Any] = context.target.app.redbeat if context.target.app else {}
    with client(context, url or str(conf.get("redbeat_redis_url") or "")) as found:
        if isinstance(found, Unseen):
            return found
        redis, server = found
        try:
            return _read(redis, server, conf)
        except (RedisError, *BAFFLED) as error:
            return unread("redbeat's keys", server, error, context)


def _read(redis: Any, server: str, conf: Mapping[str, Any]) -> Beat | Unseen:
    prefix = str(conf.get("redbeat_key_prefix") or "redbeat:")
    locked = bool(conf.get("redbeat_lock_key", True))
    lock = str(conf.get("redbeat_lock_key") or f"{prefix}:lock")
    lock = lock if lock.startswith(prefix) else prefix + lock
    pipeline = redis.pipeline(transaction=False)
    pipeline.zrevrange(f"{prefix}:schedule", 0, MOST - 1)
    pipeline.pttl(lock)
    pipeline.time()
    keys, left, (whole, micros) = pipeline.execute()
    now = datetime.fromtimestamp(whole + micros / 1e6, timezone.utc)
    if left == NO_KEY and locked:
        gone = f"no beat holds redbeat's lock {lock} on {server}"
        return Beat(Unseen(gone), gone=gone)
    for key in keys:
        pipeline.hget(key, "meta")
    times = [time for meta in pipeline.execute() if (time := last_run(meta)) is not None]
    note = f"redbeat's last run on {server}"
    timeout = conf.get("redbeat_lock_timeout")
    if isinstance(timeout, (int, float)) and 0 <= left <= timeout * 1000:
        tick = now - timedelta(milliseconds=timeout * 1000 - left)
        if not times or tick > max(times):
            times.append(tick)
            note = f"redbeat's lock on {server}, extended at every tick"
    if not times:
        return Unseen(f"redbeat on {server} has sent nothing so far (entries: {len(keys)})")
    return Beat(max(times), note=note)


def last_run(meta: bytes | str | None) -> datetime | None:
    """`last_run_at` in what redbeat keeps of an entry; None when it never ran or says no time.

    Whoever adds an entry writes the time of that as its last run, without a count of runs.
    """
    try:
        kept = json.loads(meta or "{}")
        if not kept.get("total_run_count"):
            return None
        found = kept["last_run_at"]
        zone = found.get("timezone", "UTC")
        offset = isinstance(zone, (int, float))
        tz = timezone(timedelta(seconds=zone)) if offset else ZoneInfo(zone)
        return datetime(**{name: int(found[name]) for name in _PARTS}, tzinfo=tz)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
