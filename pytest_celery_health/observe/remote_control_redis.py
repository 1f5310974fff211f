"""Remote control over Redis, in one pipeline out and few round trips back.

kombu's own consumer costs one BRPOP and one poll for each reply. Here all requests leave in one pipeline with
the binding of the reply queue, and replies come back by the thousand. The client, the credentials, the key
prefix and the names are kombu's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.observe.remote_control import Patience
from pytest_celery_health.observe.replies import Request, Tally, is_leftover, reply_name

#: Replies that are taken from the reply queue at once.
_AT_ONCE = 1000
#: kombu's prefix for fanout, unless `fanout_prefix` says another.
_FANOUT_PREFIX = "/{db}."


class RedisMailbox:
    """A reply queue of ours, on the channel of the look's connection. Close it, whatever happens."""

    def __init__(self, channel: Any, options: Mapping[str, Any], namespace: str, deadline: Deadline) -> None:
        self.channel = channel
        self.namespace = namespace
        self.swept = 0
        # The client that kombu made to open the channel: another one would be another connection.
        self.client: Any = channel.client
        self.queue = reply_name(deadline)
        self.key = self.queue.rpartition(".")[2]
        self.table = channel.keyprefix_queue % self.reply_exchange
        self.member = channel.sep.join((self.key, "", self.queue))
        self.topics = fanout_topics(channel, options, f"{namespace}.pidbox")
        self._bound = False
        self._late = False

    @property
    def reply_exchange(self) -> str:
        return f"reply.{self.namespace}.pidbox"

    def ask(self, tally: Tally, patience: Patience) -> bool:
        """Broadcasts what `tally` requests and takes the replies in; whether none of them can have been lost.

        Raises what redis-py raises.
        """
        pipeline = self.client.pipeline(transaction=False)
        pipeline.sadd(self.table, self.member)
        pipeline.smembers(self.table)
        for request in tally.requests:
            payload = self._message(request, tally.names)
            for topic in self.topics:
                pipeline.publish(topic, payload)
        self._bound = self._late = True
        _, members, *counts = pipeline.execute()
        width = len(self.topics)
        # A worker that listens to two topics (sentinel_fanout_compat) takes a message once.
        tally.mailboxes = {
            request.command: max(counts[place * width : (place + 1) * width])
            for place, request in enumerate(tally.requests)
        }
        self._collect(tally, patience)
        # Whoever has not answered may be putting a reply into the queue at this moment.
        self._late = not tally.complete
        leftovers = list(self._leftovers(members))
        return self._unbind(leftovers)

    def close(self) -> None:
        """Removes what is ours on the broker, a reply that came late included."""
        with suppress(Exception):
            if self._bound:
                self.client.srem(self.table, self.member)
                self._bound = False
            if self._late:
                self.client.delete(self.queue)

    def _collect(self, tally: Tally, patience: Patience) -> None:
        while not tally.complete:
            wait = patience.left(missing=True)
            if not wait:
                return
            first = self.client.brpop([self.queue], timeout=wait)
            if first is None:
                continue
            patience.heard()
            self._take(tally, first[1])
            while not tally.complete and not patience.cancelled():
                more = self.client.rpop(self.queue, _AT_ONCE) or ()
                for raw in more:
                    self._take(tally, raw)
                if len(more) < _AT_ONCE:
                    break

    def _take(self, tally: Tally, raw: bytes) -> None:
        try:
            message = json.loads(raw)
            body, headers = message["body"], message["headers"]
            encoding = message["properties"].get("body_encoding")
            decoded = self.channel.decode_body(body, encoding)
            data = decoded.encode("utf-8", "replace") if isinstance(decoded, str) else bytes(decoded)
            ticket, kind = headers.get("ticket"), str(message.get("content-type"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            tally.received += len(raw)
            return
        tally.received += len(raw) - len(data)
        tally.take(ticket, data, kind)

    def _unbind(self, leftovers: list[tuple[str, str]]) -> bool:
        """Removes what is ours and the leftovers; whether our binding was still there."""
        pipeline = self.client.pipeline(transaction=False)
        pipeline.srem(self.table, self.member)
        pipeline.delete(self.queue)
        for member, queue in leftovers:
            pipeline.srem(self.table, member)
            pipeline.delete(queue)
        removed = pipeline.execute()
        self._bound = False
        self.swept += sum(bool(count) for count in removed[2::2])
        return bool(removed[0])

    def _leftovers(self, members: Iterable[Any]) -> Iterable[tuple[str, str]]:
        for raw in members:
            member = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
            queue = member.rpartition(self.channel.sep)[2]
            if is_leftover(queue):
                yield member, queue

    def _message(self, request: Request, names: frozenset[str] | None) -> str:
        text = json.dumps(request.body({"exchange": self.reply_exchange, "routing_key": self.key}, names))
        body, encoding = self.channel.encode_body(text, self.channel.body_encoding)
        message = self.channel.prepare_message(
            body,
            content_type="application/json",
            content_encoding="utf-8",
            headers={"clock": 0},
            properties={
                "delivery_mode": 1,
                "body_encoding": encoding,
                "delivery_tag": str(uuid4()),
                "delivery_info": {"exchange": f"{self.namespace}.pidbox", "routing_key": ""},
            },
        )
        return json.dumps(message)


def fanout_topics(channel: Any, options: Mapping[str, Any], exchange: str, key: str = "") -> tuple[str, ...]:
    """The Redis topics of a fanout exchange: one, or two while `sentinel_fanout_compat` is set."""
    tail = f"{exchange}/{key}" if key and channel.fanout_patterns else exchange
    topics = [channel.keyprefix_fanout + tail]
    if options.get("sentinel_fanout_compat"):
        prefix = options.get("fanout_prefix", True)
        topics.append(f"{prefix if isinstance(prefix, str) else _FANOUT_PREFIX if prefix else ''}{tail}")
    return tuple(dict.fromkeys(topics))
