"""What is in a broker, to see what a call left behind."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pytest_celery_health.sandbox.world import World

if TYPE_CHECKING:
    from redis import Redis

_BINDING = "_kombu.binding."
#: What workers and Celery's own way of asking them make and take away, each in its own time.
_PASSING = re.compile(
    r"^(unacked(_index|_mutex)?|_kombu\.binding_(deadlines|permanent\..*)|celery-task-meta-.*"
    r"|_kombu\.binding\.(.*\.)?(pidbox|celeryev.*)|.*\.reply\..*pidbox|.*\.pidbox|celeryev\..*)$"
)
#: Seconds in which what is to go by itself has gone.
_SETTLES = 0.3


class Traces:
    """The keys of the sandbox's Redis. On another broker nothing is seen, and nothing found.

    queues: those that the app knows, into which others than probes send.
    """

    def __init__(self, world: World, queues: Iterable[str]) -> None:
        self._queues = frozenset(queues)
        self._client: Redis | None = None
        url = world.sandbox.launch.url
        if url.startswith("redis"):
            from redis import Redis

            self._client = Redis.from_url(url, socket_timeout=5)

    def seen(self) -> frozenset[str]:
        """What there is now."""
        if self._client is None:
            return frozenset()
        keys = (key.decode(errors="replace") for key in self._client.scan_iter(count=1000))
        return frozenset(key for key in keys if not _PASSING.match(key) and not self._is_sent_to(key))

    def _is_sent_to(self, key: str) -> bool:
        # kombu's separator of a queue and its priority, unless the app has one of its own.
        return key.partition("\x06\x16")[0] in self._queues

    def new_since(self, before: frozenset[str]) -> list[str]:
        """What has come, and stays."""
        over = time.monotonic() + _SETTLES
        while (new := self.seen() - before) and time.monotonic() < over:
            time.sleep(0.02)
        return sorted(new)

    def remove(self, keys: Iterable[str]) -> None:
        """Take it away again."""
        keys = list(keys)
        if keys and self._client is not None:
            self._client.delete(*keys)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def named(key: str) -> str:
    """As a reader knows it: a key of kombu's is a queue."""
    return f"the queue {key.removeprefix(_BINDING)}" if key.startswith(_BINDING) else f"the key {key}"
