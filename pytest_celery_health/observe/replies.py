"""Replies of workers to remote control: gathered, bounded, and not trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

from pytest_celery_health.facts import NOT_ASKED, RunningTask, Unseen, Worker, Workers
from pytest_celery_health.observe.clock import Deadline, epoch

T = TypeVar("T")

#: Bytes of one reply and of all, and characters of a node's name: more is cut.
REPLY_LIMIT = 1_000_000
TOTAL_LIMIT = 128_000_000
NAME_LIMIT = 255

#: What every name of ours on a broker begins with, so that what a killed look left is known as ours.
PREFIX = "celery-health."

#: The header that names the reply queue of who sent a request.
SENDER = "celery-health"

#: The command that answers a detail, where it is not of the same name. Nothing cheaper than `report` has
#: the version without events.
_COMMANDS = {"version": "report"}
_BEAT = "celerybeat@"
_NAME_IN_BODY = re.compile(rb'\s*\{\s*"([^"\\]{1,255})"\s*:')
_VERSION = re.compile(r"celery:(\S+)")
NOBODY = "a reply without a name"


def reply_name(deadline: Deadline) -> str:
    """A name for a temporary queue of ours, with the epoch after which it is a leftover."""
    return f"{PREFIX}{int(epoch() + deadline.seconds) + 60}.{uuid4().hex}"


def is_leftover(queue: str) -> bool:
    """Whether a look that was killed left this temporary queue."""
    until = queue.removeprefix(PREFIX).partition(".")[0]
    return queue.startswith(PREFIX) and until.isdigit() and int(until) < epoch()


class MalformedError(Exception):
    """A reply that is not what Celery sends. The message says what is wrong with it."""


@dataclass(frozen=True)
class Request:
    """One control command, and the ticket that its replies carry."""

    command: str
    ticket: str

    def body(self, reply_to: Mapping[str, str], destination: Iterable[str] | None) -> dict[str, Any]:
        """The message that a worker's mailbox takes, as kombu's own `Mailbox` writes it."""
        return {
            "method": self.command,
            "arguments": {},
            "destination": sorted(destination) if destination is not None else None,
            "pattern": None,
            "matcher": None,
            "ticket": self.ticket,
            "reply_to": dict(reply_to),
        }


class Tally:
    """Who answered what to one round of requests.

    mailboxes: how many each command reached, by command; empty where the broker does not tell.
    names: who alone was asked; None for everybody.
    """

    def __init__(self, details: Iterable[str], names: frozenset[str] | None = None) -> None:
        self.details = frozenset(details)
        commands = sorted({_COMMANDS.get(detail, detail) for detail in self.details - {"clock"}})
        self.requests = tuple(Request(command, uuid4().hex) for command in ("ping", *commands))
        self.names = names
        self.mailboxes: dict[str, int] = {}
        self.received = 0
        self.full = False
        self._commands = {request.ticket: request.command for request in self.requests}
        self._counts = dict.fromkeys((request.command for request in self.requests), 0)
        self._answers: dict[str, dict[str, list[Any]]] = {}
        self._malformed: dict[str, list[str]] = {}

    def take(self, ticket: object, body: bytes, content_type: str) -> None:
        """Counts in the reply that came with `ticket`; one that answers nothing of ours is left out."""
        self.received += len(body)
        command = self._commands.get(str(ticket))
        if command is None:
            return
        if self.received > TOTAL_LIMIT:
            self.full = True
            return
        self._counts[command] += 1
        try:
            name, value = _opened(body, content_type)
        except MalformedError as problem:
            self._malformed.setdefault(_name_in(body), []).append(f"{command}: {problem}")
            return
        self._answers.setdefault(name, {}).setdefault(command, []).append(value)

    def reached(self, mailboxes: int) -> None:
        """Told by a broker that knows it: how many mailboxes each request is delivered to."""
        self.mailboxes = dict.fromkeys((request.command for request in self.requests), mailboxes)

    def nobody(self) -> None:
        """Told by a broker that knows it: there is no mailbox."""
        self.reached(0)

    @property
    def counted(self) -> bool:
        """Whether it is known how many have to answer."""
        return bool(self.mailboxes) or self.names is not None

    @property
    def complete(self) -> bool:
        """Whether everybody who was reached has answered everything."""
        if self.full:
            return True
        if self.names is not None and not self.mailboxes:
            return all(
                len(self._answers.get(name, {})) == len(self.requests) or name in self._malformed
                for name in self.names
            )
        if not self.mailboxes:
            return False
        beats = sum(len(got.get("ping", ())) for name, got in self._answers.items() if _is_beat(name))
        return all(
            count >= self.mailboxes.get(command, 0) - (beats if command != "ping" else 0)
            for command, count in self._counts.items()
        )

    def answered(self, names: Iterable[str]) -> bool:
        """Whether each of `names` has answered everything."""
        return all(len(self._answers.get(name, {})) == len(self.requests) for name in names)

    @property
    def pinged(self) -> int:
        """How many answered ping."""
        return self._counts["ping"]

    def workers(self, now: float) -> Workers:
        """What the replies say; `now` is the epoch that starting times are against."""
        answered = []
        beats = []
        for name in sorted({*self._answers, *self._malformed}):
            got = self._answers.get(name, {})
            problems = list(self._malformed.get(name, ()))
            if not problems and self._is_beat(name, got):
                beats.append(name)
            else:
                answered.append(self._worker(name, got, problems, now))
        subscribed = self.mailboxes.get("ping")
        known = Workers(tuple(answered), tuple(beats))
        if subscribed is None:
            return known
        return Workers(known.answered, known.beats, subscribed)

    def _is_beat(self, name: str, got: Mapping[str, Any]) -> bool:
        return _is_beat(name) or (len(self.requests) > 1 and got.keys() == {"ping"})

    def _worker(self, name: str, got: Mapping[str, list[Any]], problems: list[str], now: float) -> Worker:
        def read(detail: str, parse: Callable[[Any], T]) -> T | Unseen:
            if detail not in self.details:
                return NOT_ASKED
            command = _COMMANDS.get(detail, detail)
            if command not in got:
                refused = any(problem.startswith(f"{command}: ") for problem in problems)
                how = "did not answer" if not refused else "sent a malformed reply to"
                return Unseen(f"{name} {how} {command}")
            try:
                return parse(got[command][0])
            except MalformedError as problem:
                problems.append(f"{command}: {problem}")
                return Unseen(f"{name} sent a malformed reply to {command}")

        for value in got.get("ping", ()):
            if value != {"ok": "pong"}:
                problems.append(f"ping: {_show(value)}")
        stats = read("stats", _mapping)
        answers = len(got.get("ping", ())) or 1

        def stat(parse: Callable[[Mapping[str, Any]], T | Unseen]) -> T | Unseen:
            if isinstance(stats, Unseen):
                return stats
            try:
                return parse(stats)
            except MalformedError as problem:
                problems.append(f"stats: {problem}")
                return Unseen(f"{name} sent a malformed reply to stats")

        return Worker(
            name,
            answers=answers,
            queues=read("active_queues", _queue_names),
            tasks=read("registered", _task_names),
            pool=stat(_pool),
            pool_size=stat(_pool_size),
            uptime=stat(_uptime),
            version=read("version", _version),
            accepted=stat(_accepted),
            clock_offset=NOT_ASKED,
            active=read("active", lambda value: _running(value, now)),
            reserved=read("reserved", lambda value: _running(value, now)),
            scheduled=read("scheduled", _scheduled),
            malformed=tuple(dict.fromkeys(problem[:200] for problem in problems)),
        )


def _is_beat(name: str) -> bool:
    return name.startswith(_BEAT)


def _opened(body: bytes, content_type: str) -> tuple[str, Any]:
    if len(body) > REPLY_LIMIT:
        raise MalformedError(f"{len(body):,} bytes, of which at most {REPLY_LIMIT:,} are read")
    if content_type != "application/json":
        raise MalformedError(f"content type {content_type[:60]!r}; only JSON is read")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedError(f"not JSON: {_show(body[:60])}") from None
    if not isinstance(value, dict) or len(value) != 1:
        raise MalformedError(f"not one node's name and its answer: {_show(value)}")
    ((name, answer),) = value.items()
    return _sane(name), answer


def _name_in(body: bytes) -> str:
    found = _NAME_IN_BODY.match(body[:400])
    return _sane(found.group(1).decode("utf-8", "replace")) if found else NOBODY


def _sane(name: str) -> str:
    """`name` cut and in one line of printable characters: it ends on somebody's terminal."""
    clean = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in name)
    return clean if len(clean) <= NAME_LIMIT else clean[: NAME_LIMIT - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _show(value: object) -> str:
    """`value` for a message. Of containers only the outside: what is inside may be anybody's secret."""
    if isinstance(value, dict):
        error = value.get("error")
        if isinstance(error, str):
            return _sane(f"error {error[:120]}")
        return f"a dict of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return _sane(repr(value)[:60])


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict) or "error" in value:
        raise MalformedError(_show(value))
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedError(_show(value))
    return value


def _queue_names(value: Any) -> tuple[str, ...]:
    names = []
    for queue in _list(value):
        name = queue.get("name") if isinstance(queue, dict) else None
        if not isinstance(name, str):
            raise MalformedError(f"a queue without a name: {_show(queue)}")
        names.append(_sane(name))
    return tuple(names)


def _task_names(value: Any) -> frozenset[str]:
    names = set()
    for task in _list(value):
        if not isinstance(task, str):
            raise MalformedError(f"a task that is {_show(task)}")
        # "shop.report [rate_limit=10/m]"
        names.add(_sane(task.partition(" [")[0]))
    return frozenset(names)


def _pool(stats: Mapping[str, Any]) -> str | Unseen:
    pool = stats.get("pool")
    if not isinstance(pool, dict) or not isinstance(pool.get("implementation"), str):
        return Unseen("its stats name no pool")
    # "celery.concurrency.prefork:TaskPool"
    module = pool["implementation"].partition(":")[0]
    return _sane(module.rpartition(".")[2] if module.startswith("celery.concurrency.") else module)


def _pool_size(stats: Mapping[str, Any]) -> int | Unseen:
    pool = stats.get("pool")
    size = pool.get("max-concurrency") if isinstance(pool, dict) else None
    if size is None:
        return Unseen("its stats name no pool size")
    if isinstance(size, bool) or not isinstance(size, int):
        raise MalformedError(f"a pool size that is {_show(size)}")
    return size


def _uptime(stats: Mapping[str, Any]) -> float | Unseen:
    uptime = stats.get("uptime")
    if uptime is None:
        return Unseen("its stats have no uptime")
    return _number(uptime, "an uptime")


def _accepted(stats: Mapping[str, Any]) -> Mapping[str, int] | Unseen:
    total = stats.get("total")
    if not isinstance(total, dict):
        raise MalformedError(f"a total that is {_show(total)}")
    for count in total.values():
        if isinstance(count, bool) or not isinstance(count, int):
            raise MalformedError(f"a count that is {_show(count)}")
    return {_sane(name): count for name, count in total.items()}


def _version(value: Any) -> str:
    text = value.get("ok") if isinstance(value, dict) else None
    found = _VERSION.search(text) if isinstance(text, str) else None
    if found is None:
        raise MalformedError(f"no version in {_show(value)}")
    return _sane(found.group(1)[:40])


def _running(value: Any, now: float) -> tuple[RunningTask, ...]:
    return tuple(_task(task, now) for task in _list(value))


def _scheduled(value: Any) -> tuple[RunningTask, ...]:
    return tuple(_task(entry, None) for entry in _requests(_list(value)))


def _requests(entries: list[Any]) -> Iterator[Any]:
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("request"), dict):
            raise MalformedError(f"an entry without a request: {_show(entry)}")
        yield entry["request"]


def _task(task: Any, now: float | None) -> RunningTask:
    if not isinstance(task, dict):
        raise MalformedError(f"a task that is {_show(task)}")
    name, uuid, started = task.get("name"), task.get("id"), task.get("time_start")
    if not isinstance(name, str):
        raise MalformedError("a task without a name")
    running = None
    if started is not None and now is not None:
        running = max(0.0, now - _number(started, "a starting time"))
    return RunningTask(_sane(name), running, _sane(uuid) if isinstance(uuid, str) else "")


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e12 < value < 1e12:
        raise MalformedError(f"{what} that is {_show(value)}")
    return float(value)
