"""The Redis that a heartbeat is in: the broker's, or one of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytest_celery_health.durations import spell
from pytest_celery_health.facts import Unseen
from pytest_celery_health.masking import mask, masked_url
from pytest_celery_health.observe.context import Context
from pytest_celery_health.observe.trouble import baffled, hung_up, phrase, plain, unresolved


@contextmanager
def client(context: Context, url: str) -> Iterator[tuple[Any, str] | Unseen]:
    """A client without key prefix and the masked name of its server, or why there is none.

    url: a Redis URL or "env:NAME"; "" is the broker. In the sandbox it is always the broker.
    """
    if url.startswith("env:"):
        name = url.removeprefix("env:")
        url = context.target.env.get(name) or os.environ.get(name, "")
        if not url and not context.target.sealed:
            yield Unseen(f"${name}, the heartbeat's url, is not set")
            return
    if not url or context.target.sealed:
        yield _broker(context)
        return
    with _own(context, url) as found:
        yield found


def unread(what: str, server: str, error: Exception, context: Context) -> Unseen:
    """Why `what` could not be read from `server`, the evidence first."""
    said = "no such host:" if unresolved(error) else ""
    said = said or phrase(error, spell(context.deadline.seconds), opening=True) or baffled(error)
    said = said or ("connection closed by" if hung_up(error) else f"{plain(error)}, on")
    return Unseen(f"{mask(said)} {server} ({what})")


def _broker(context: Context) -> tuple[Any, str] | Unseen:
    if isinstance(context.connection, Unseen):
        return context.connection
    driver = context.connection.transport.driver_type
    if driver != "redis":
        return Unseen(f"the broker is {driver}, not Redis: say with url where the heartbeat is")
    from redis import Redis

    channel: Any = context.connection.default_channel
    return Redis(connection_pool=channel.pool), masked_url(context.target.url)


@contextmanager
def _own(context: Context, url: str) -> Iterator[tuple[Any, str] | Unseen]:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    where = masked_url(url)
    # So that a server that never answers is told before the deadline ends the look.
    left = 0.8 * context.deadline.left()
    try:
        client = Redis.from_url(
            url.replace("redis+socket://", "unix://"),
            socket_timeout=left,
            socket_connect_timeout=left,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        yield Unseen(f"{where} is not a Redis URL: write redis://, rediss:// or unix://")
        return
    sockets = context.sockets()
    sockets.tap_pool(client.connection_pool)
    try:
        yield client, where
    finally:
        client.close()
        sockets.close()
