"""`redis:KEY`: a key that a task or a thread of the project keeps fresh."""

from __future__ import annotations

from pytest_celery_health.facts import Beat, Unseen
from pytest_celery_health.masking import mask
from pytest_celery_health.observe.beat.redis import client, unread
from pytest_celery_health.observe.beat.times import moment
from pytest_celery_health.observe.context import Context
from pytest_celery_health.observe.trouble import BAFFLED


def read(context: Context, rest: str, url: str) -> Beat | Unseen:
    """The time in the string `rest`; its exact key, prefixes included (Django's cache adds ":1:")."""
    from redis import RedisError, ResponseError

    with client(context, url) as found:
        if isinstance(found, Unseen):
            return found
        redis, server = found
        where = f"key {rest} on {server}"
        try:
            value = redis.get(rest)
        except ResponseError as error:
            return Unseen(f"Redis refused to read {where}: {mask(str(error))}")
        except (RedisError, *BAFFLED) as error:
            return unread(f"key {rest}", server, error, context)
    if value is None:
        return Unseen(f"no {where}")
    context.received(len(value))
    return Beat(moment(value, where), note=where)
