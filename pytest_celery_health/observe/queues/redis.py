"""Queues on Redis, by kombu's `redis` and `sentinel` transports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from re import sub
from typing import Any

from pytest_celery_health.facts import NOT_ASKED, Queue, Unacked, Unseen
from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.observe.queues.base import NO_TIME, Depths, Known, Marks, Reader

#: Commands in one round trip: thousands of queues at once, without a burst that other clients would notice.
AT_ONCE = 10_000

#: Queues up to which every list is asked for at once.
FEW = 50

#: Bytes of oldest messages after which no more are read in a look, and queues whose are read at once.
MESSAGES = 64_000_000
OLDEST_AT_ONCE = 100


class RedisQueues(Reader):
    """LLEN over every priority step of every queue, all in one pipeline (two for many queues).

    kombu keeps a queue as one list for each priority step that holds messages, so an empty queue has no key:
    whether it exists is told by the workers, by the app or by the bindings that workers left.
    """

    drivers = ("redis",)

    def __init__(self, connection: Any, deadline: Deadline, received: Callable[[int], None]) -> None:
        super().__init__(connection, deadline, received)
        self.channel = connection.default_channel
        self.prefix: str = self.channel.global_keyprefix or ""
        self._messages = 0

    def keys(self, queue: str) -> tuple[str, ...]:
        """The lists of `queue`, the one that workers take from first at the front."""
        return tuple(
            f"{self.prefix}{queue}{self.channel.sep}{step}" if step else f"{self.prefix}{queue}"
            for step in self.channel.priority_steps
        )

    def depths(self, names: Sequence[str], known: Known, *, unacked: bool = False) -> Depths:
        first: list[tuple[Any, ...]] = []
        if unacked:
            first = [
                ("HLEN", self.prefix + self.channel.unacked_key),
                ("ZRANGE", self.prefix + self.channel.unacked_index_key, 0, 0, "WITHSCORES"),
                ("TIME",),
            ]
        replies, sizes = self._sizes({name: self.keys(name) for name in names}, first)
        held = self._unacked(*replies) if unacked else NOT_ASKED
        queues = {name: _queue(name, sizes[name]) for name in names}
        return Depths(tuple(self._existing(queues, known).values()), held)

    def bound(self) -> frozenset[str] | Unseen:
        every = self.channel.keyprefix_queue
        pattern = sub(r"[][*?\\]", r"\\\g<0>", self.prefix + every % "") + "*"
        # What is left of the time is for the depths, should the database be a huge one.
        half = self.deadline.sooner(self.deadline.left() / 2)
        tables: dict[Any, None] = {}
        cursor: Any = None
        while cursor != 0:
            if half.passed:
                return Unseen("there was no time to list the broker's queues, so others may match")
            reply = next(self._ask([("SCAN", cursor or 0, "MATCH", pattern, "COUNT", AT_ONCE)]))
            if isinstance(reply, Unseen):
                return reply
            cursor, found = reply
            tables.update(dict.fromkeys(found))
        names: set[str] = set()
        for members in self._ask([("SMEMBERS", table) for table in tables]):
            if isinstance(members, Unseen):
                return members
            names.update(self._queue_in(member) for member in members)
        return frozenset(names - {""})

    def taking(self, exchange: str, routing_key: str) -> tuple[str, ...] | Unseen:
        reply = next(self._ask([("SMEMBERS", self.prefix + self.channel.keyprefix_queue % exchange)]))
        if isinstance(reply, Unseen):
            return reply
        rows = [_text(member).split(self.channel.sep) for member in reply]
        found = sorted({row[-1] for row in rows if row[0] == routing_key} - {""})
        if not found and any(len(row) > 2 and row[1] for row in rows):
            return Unseen("a topic exchange, whose bindings count for kombu once beat has declared it")
        return tuple(found)

    def _queue_in(self, member: Any) -> str:
        return _text(member).rsplit(self.channel.sep, 1)[-1]

    def _sizes(
        self, keys: Mapping[str, Sequence[str]], first: Sequence[tuple[Any, ...]]
    ) -> tuple[list[Any], dict[str, list[Any]]]:
        """The replies to `first`, and the length of each list of each queue."""
        names = list(keys)
        groups: list[list[str]] = []
        if len(names) > FEW and len(self.channel.priority_steps) > 1:
            # Hardly any of many queues has messages of other priorities: one EXISTS of a group is cheaper.
            groups = [names[at : at + FEW] for at in range(0, len(names), FEW)]
        lists = {name: keys[name][:1] if groups else keys[name] for name in names}
        asked = [("LLEN", key) for name in names for key in lists[name]]
        any_of = [("EXISTS", *(key for name in group for key in keys[name][1:])) for group in groups]
        replies = self._ask([*first, *asked, *any_of])
        head = [next(replies) for _ in first]
        sizes = {name: [next(replies) for _ in lists[name]] for name in names}
        rest = [name for group in groups if next(replies) != 0 for name in group]
        replies = self._ask([("LLEN", key) for name in rest for key in keys[name][1:]])
        for name in rest:
            sizes[name] += [next(replies) for _ in keys[name][1:]]
        return head, sizes

    def _existing(self, queues: Mapping[str, Queue], known: Known) -> dict[str, Queue]:
        doubtful = [name for name, queue in queues.items() if queue.exists == NOT_ASKED]
        unknown = [name for name in doubtful if name not in known.names]
        bound = self._bound(unknown, known) if unknown else {}
        found = dict(queues)
        for name in doubtful:
            exists: bool | Unseen = bound.get(name, True)
            found[name] = Queue(name, ready=0, exists=exists)
        return found

    def _bound(self, names: Sequence[str], known: Known) -> dict[str, bool | Unseen]:
        """Whether a worker ever bound these queues to its own exchange or to one of the app's."""
        tables = list(dict.fromkeys((*known.exchanges, *names)))
        replies = self._ask([("SMEMBERS", self.prefix + self.channel.keyprefix_queue % t) for t in tables])
        bound: set[str] = set()
        blind: Unseen | None = None
        for members in replies:
            if isinstance(members, Unseen):
                blind = members
            else:
                bound.update(map(self._queue_in, members))
        if known.declared is None:
            blind = Unseen(
                "it is empty or does not exist: Redis keeps no key of an empty queue, and neither"
                " a worker nor a binding names it"
            )
        return {name: True if name in bound else blind or False for name in names}

    def _unacked(self, count: Any, oldest: Any, time: Any) -> Unacked | Unseen:
        if not self.channel.ack_emulation:
            return Unseen("ack_emulation is off, so Redis keeps nothing of what workers hold", never=True)
        age: float | Unseen | None
        if isinstance(oldest, Unseen) or isinstance(time, Unseen):
            age = oldest if isinstance(oldest, Unseen) else time
        elif oldest:
            # RESP2 answers [member, score], RESP3 [[member, score]].
            *_, score = oldest[-1] if isinstance(oldest[-1], (list, tuple)) else oldest
            age = max(0.0, int(time[0]) + int(time[1]) / 1e6 - float(score))
        else:
            age = None
        return Unacked(count, age, float(self.channel.visibility_timeout))

    def oldest(self, names: Iterable[str]) -> Mapping[str, Marks]:
        every = list(names)
        found: dict[str, Marks] = {}
        for start in range(0, len(every), OLDEST_AT_ONCE):
            if self._messages > MESSAGES:
                break
            found.update(self._oldest(every[start : start + OLDEST_AT_ONCE]))
        return found

    def _oldest(self, names: Sequence[str]) -> Mapping[str, Marks]:
        lists = {name: self.keys(name) for name in names}
        replies = self._ask([("LINDEX", key, -1) for keys in lists.values() for key in keys])
        tails = {name: [next(replies) for _ in keys] for name, keys in lists.items()}
        self._messages += sum(_bytes(each) for messages in tails.values() for each in messages if each)
        # Only a digest of a message is kept: it may hold anything.
        return {
            name: tuple(None if message is None else blake2b(message).digest() for message in messages)
            for name, messages in tails.items()
            if not any(isinstance(message, Unseen) for message in messages)
        }

    def _ask(self, commands: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """The replies, in order; what Redis refused is Unseen."""
        from redis import Redis

        # kombu's own client adds the key prefix to some commands (LLEN) and not to others (LINDEX).
        client = Redis(connection_pool=self.channel.pool)
        for start in range(0, len(commands), AT_ONCE):
            some = commands[start : start + AT_ONCE]
            if self.deadline.passed:
                yield from [NO_TIME] * len(some)
                continue
            pipeline: Any = client.pipeline(transaction=False)
            for command in some:
                pipeline.execute_command(*command)
            replies = pipeline.execute(raise_on_error=False)
            self.received(sum(map(_bytes, replies)))
            for command, reply in zip(some, replies, strict=True):
                if isinstance(reply, Exception):
                    yield Unseen(f"Redis refused {command[0]} on it: {reply}")
                else:
                    yield reply


def _queue(name: str, sizes: Sequence[Any]) -> Queue:
    for size in sizes:
        if isinstance(size, Unseen):
            return Queue(name, ready=size, exists=size)
    ready = sum(sizes)
    return Queue(name, ready=ready, exists=True if ready else NOT_ASKED)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _bytes(reply: Any) -> int:
    if isinstance(reply, int):
        return 1 if reply < 10 else len(str(reply))
    if isinstance(reply, (list, tuple, set)):
        return sum(map(_bytes, reply))
    return len(reply) if isinstance(reply, bytes) else len(str(reply))
