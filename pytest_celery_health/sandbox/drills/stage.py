"""One drill under way: what it sends to its worker, and what it waits for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kombu import Connection, Producer
from kombu.pidbox import Mailbox

from pytest_celery_health.record.recording import Entry, HandlerCall, LogRecord, SignalCall
from pytest_celery_health.record.signals import RUNNING
from pytest_celery_health.sandbox import Sandbox
from pytest_celery_health.sandbox.drills.ends import DRILL_TASK, HEADER, End
from pytest_celery_health.sandbox.drills.shutdown import Shutdown
from pytest_celery_health.sandbox.processes import alive
from pytest_celery_health.sandbox.queues.messages import body_of, headers_of, new_id

if TYPE_CHECKING:
    from pytest_celery_health.sandbox.drills.crew import Worker

_TICK = 0.005
_PATIENCE = 5.0


class OverError(Exception):
    """What a drill waited for did not come in time. The message says what it was."""


class Stage:
    """What an end's `play` works with.

    within: seconds that the drill may take. grace, runs_for: seconds, see `Drills`.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        worker: Worker,
        end: End,
        *,
        task: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        within: float,
        grace: float,
        runs_for: float,
    ) -> None:
        self.sandbox = sandbox
        self.worker = worker
        self.end = end
        self.task = task or DRILL_TASK
        self.args = list(args)
        self.kwargs = dict(kwargs)
        self.grace = grace
        self.runs_for = runs_for
        self.id = new_id()
        #: A file that bodies know, and a play may create.
        self.file: Path = sandbox.folder / f"drill-{self.id}"
        self.shutdown: Shutdown | None = None
        self.until: float | None = None
        self.broker_lost = False
        self._over = time.monotonic() + within
        self._within = within
        self._entries: list[Entry] = []

    # What it sends.

    def send(
        self,
        *,
        body: str = "",
        said: Mapping[str, Any] | None = None,
        id: str = "",  # noqa: A002
        name: str = "",
        args: Sequence[Any] | None = None,
        without: Sequence[str] = (),
        raw: Any = None,
        **headers: Any,
    ) -> None:
        """Send a message as a client of the app would; by default the end's own body, of the drill's task.

        headers: over those of a usual message, such as `timelimit`. without: headers that are left out.
        raw: the message's body instead of arguments; bytes are sent as they are, and called JSON.
        """
        told = {"body": body or self.end.body, "file": str(self.file), **self.end.said, **(said or {})}
        positional = self.args if args is None else list(args)
        all_headers = {
            **headers_of(name or self.task, id or self.id, positional, self.kwargs),
            HEADER: told,
            **headers,
        }
        for header in without:
            del all_headers[header]
        payload = body_of(positional, self.kwargs) if raw is None else raw
        how = {"serializer": self.worker.serializer}
        if isinstance(raw, bytes):
            how = {"content_type": "application/json", "content_encoding": "utf-8"}
        Producer(self._connection.default_channel).publish(
            payload,
            exchange="",
            routing_key=self.worker.queue,
            headers=all_headers,
            correlation_id=all_headers.get("id", self.id),
            delivery_mode=1,
            **how,
        )

    def revoke(self, *, terminate: bool = False) -> None:
        """Revoke the drill's task by remote control, as an operator does."""
        target = self.sandbox.target
        exclusive = target.app is not None and target.app.control_queue_exclusive
        more = {"queue_exclusive": True} if exclusive else {}
        mailbox = Mailbox(target.control_exchange, type="fanout", connection=self._connection, **more)
        arguments = {"task_id": self.id, "terminate": terminate, "signal": "SIGTERM"}
        mailbox._broadcast("revoke", arguments, destination=[self.worker.node])

    def signal(self, number: int) -> None:
        """Send the worker's main process a signal."""
        self.sandbox.signal(self.worker.name, number)

    def left_in_the_broker(self) -> set[str]:
        """The ids of the messages in the worker's queue, and of those that it did not acknowledge."""
        self.disconnect()
        channel = self._connection.default_channel
        found = set()
        while (message := channel.basic_get(self.worker.queue, no_ack=True)) is not None:
            found.add(message.headers["id"])
        unacked = getattr(channel, "unacked_key", None)
        if unacked:  # Redis gives them back when they have been there for the visibility timeout
            key = f"{channel.global_keyprefix or ''}{unacked}"
            with channel.conn_or_acquire() as client:
                held = client.execute_command("HVALS", key)
            found |= {json.loads(each)[0]["headers"]["id"] for each in held}
        return found

    @cached_property
    def _connection(self) -> Any:
        target = self.sandbox.target
        options = {**target.options, "socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}
        if not target.url.startswith("redis"):
            options = dict(target.options)
        return Connection(target.url, transport_options=options, connect_timeout=_PATIENCE)

    def disconnect(self) -> None:
        if "_connection" in self.__dict__:
            with suppress(Exception):
                self._connection.release()
            del self.__dict__["_connection"]

    # What it sees.

    @property
    def entries(self) -> list[Entry]:
        """What the worker's processes recorded since the drill began, in the order of time."""
        news = self.worker.news()
        if news:
            self._entries = fold([*self._entries, *news])
        return self._entries

    def sent(self, *signals: str, id: str = "") -> list[SignalCall]:  # noqa: A002
        """The signals of these names that are about the drill's task; all of them where none has an id."""
        found = [each for each in self.entries if isinstance(each, SignalCall) and each.signal in signals]
        return (
            [each for each in found if about(each, id or self.id)] if id or not self.end.nameless else found
        )

    def received(self, ids: Sequence[str]) -> list[str]:
        """Those that the worker has taken."""
        seen = [
            each for each in self.entries if isinstance(each, SignalCall) and each.signal == "task_received"
        ]
        return [each for each in ids if any(about(call, each) for call in seen)]

    def logged(self, text: str) -> bool:
        """Whether Celery or the app logged this text."""
        return any(isinstance(each, LogRecord) and text in each.message for each in self.entries)

    def wait(self, holds: Callable[[], object], what: str, *, up_to: float | None = None) -> None:
        """Until something holds. Raises OverError at the drill's deadline, or after `up_to` seconds."""
        over = self._over if up_to is None else min(self._over, time.monotonic() + up_to)
        while not holds():
            if time.monotonic() > over:
                raise OverError(what)
            if self.worker.pool not in self.end.breaks:
                self.worker.restore()
            time.sleep(_TICK)

    def wait_for(self, *signals: str) -> None:
        """Until one of these signals was sent about the drill's task, or the worker has ended."""
        self.wait(lambda: self.sent(*signals) or self.gone, " or ".join(signals))

    @property
    def gone(self) -> bool:
        return self.worker.gone or self._ended()

    def _ended(self) -> bool:
        self.worker.exit_code = self.sandbox.exit_code(self.worker.name)
        return self.worker.gone

    def settled(self) -> bool:
        """Whether no process of the worker has anything left to do, or to tell, of the drill's task."""
        if not self._at_rest():
            return False
        if self.gone:
            self.entries  # noqa: B018 - the last of what it told
            return True
        if self.worker.pool in self.end.forgotten:
            return True
        said = self.worker.ask(do="look")
        return said is not None and said["idle"] and self.id not in said["known"] and self._at_rest()

    def _at_rest(self) -> bool:
        if self._open_handlers():
            return False
        begun = {each.pid for each in self.sent("task_prerun")}
        # Without a state it comes from a child that is being ended.
        ended = {
            each.pid
            for each in self.sent("task_postrun")
            if each.arguments.get("state") or each.process == "main"
        }
        return not any(alive(pid) for pid in begun - ended)

    def _open_handlers(self) -> bool:
        """Whether a live process has yet to call, or to come back from, a handler of a signal it sent."""
        due: dict[int, int] = {}
        for each in self.entries:
            if isinstance(each, SignalCall):
                due[each.pid] = due.get(each.pid, 0) + each.receivers
            elif isinstance(each, HandlerCall) and each.error != RUNNING:
                due[each.pid] = due.get(each.pid, 0) - 1
        return any(number > 0 and alive(pid) for pid, number in due.items())


def in_seconds(seconds: float) -> str:
    """A moment from now, as Celery writes it."""
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()


def about(call: SignalCall, task_id: str) -> bool:
    """Whether a signal is about this task: each says it in another way."""
    return call.task_id == task_id or task_id in json.dumps(dict(call.arguments), default=repr)


def fold(entries: Sequence[Entry]) -> list[Entry]:
    """`entries` in the order of time, without the beginnings of calls whose end is among them."""
    ended = {_call(each) for each in entries if isinstance(each, HandlerCall) and each.error != RUNNING}
    return sorted(_without(entries, ended), key=lambda each: each.at)


def _without(entries: Sequence[Entry], ended: set[tuple[Any, ...]]) -> Iterator[Entry]:
    for each in entries:
        if not (isinstance(each, HandlerCall) and each.error == RUNNING and _call(each) in ended):
            yield each


def _call(call: HandlerCall) -> tuple[Any, ...]:
    return call.pid, call.at, call.signal, call.handler
