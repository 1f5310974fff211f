"""The messages that a broker of the sandbox's holds, taken from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ORIGIN = re.compile(r"gen(\d+)@")


@dataclass(frozen=True)
class Message:
    """task: its name; "" where it is none of Celery's. pid: the process that published it, or 0.

    id: its task's, which stays the same when kombu sends the message again; "" where it is none of Celery's.
    """

    task: str
    pid: int
    id: str = ""


def take(url: str, queues: Iterable[str]) -> list[Message]:
    """All messages, which are gone then.

    queues: where to look on AMQP, which shows nobody what else there is; a queue may be missing. On Redis
    every list is looked at.
    """
    found = _of_amqp(url, queues) if url.startswith("amqp") else _of_redis(url)
    return [_read(headers) for headers in found]


def _read(headers: Mapping[str, Any]) -> Message:
    origin = _ORIGIN.match(str(headers.get("origin") or ""))
    pid = int(origin[1]) if origin else 0
    return Message(str(headers.get("task") or ""), pid, str(headers.get("id") or ""))


def _of_redis(url: str) -> Iterator[Mapping[str, Any]]:
    import redis

    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(_type="list"):
            for _ in range(client.llen(key)):
                text = client.rpop(key)
                try:
                    message = json.loads(text)
                except ValueError:  # none of kombu's
                    continue
                if isinstance(message, dict) and "properties" in message:
                    yield message.get("headers") or {}


def _of_amqp(url: str, queues: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    from kombu import Connection
    from kombu.exceptions import ChannelError

    with Connection(url, connect_timeout=5) as connection:
        for queue in dict.fromkeys(queues):
            with connection.channel() as channel:
                try:
                    while (message := channel.basic_get(queue, no_ack=True)) is not None:
                        yield message.headers or {}
                except (ChannelError, *connection.channel_errors):  # no such queue
                    continue
