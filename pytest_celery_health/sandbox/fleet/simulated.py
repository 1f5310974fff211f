"""Simulated workers: scripted mailboxes that answer remote control as Celery's worker does.

They run no task and consume no queue. A whole fleet lives in one thread and on two or three connections of
this process, so it costs next to nothing. Code under test talks to them through its own
`app.control` and the real broker.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from heapq import heappop, heappush
from types import TracebackType
from typing import TYPE_CHECKING, Any

from celery.events.event import Event
from kombu.clocks import LamportClock
from kombu.matcher import match
from kombu.utils.url import maybe_sanitize_url

from pytest_celery_health.sandbox.fleet.mailboxes import (
    LONGEST_WAIT,
    SOCKET_TIMEOUT,
    Letter,
    Mailboxes,
    Reply,
    mailboxes,
)
from pytest_celery_health.sandbox.fleet.worker import Shutdown, SimulatedWorker, State

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

#: Between attempts to come back to a broker that went away, in seconds.
RECONNECT = 0.1


class Fleet:
    """Simulated workers on one broker.

    connection_url: the broker's, as `broker_url`; `memory://` is seen by this process only.
    control_exchange, event_exchange: as the app configures them.
    options: `broker_transport_options` of the app.
    serializer, accept: `task_serializer` and `accept_content` of the app, in which it asks and is answered.
    tasks: gives those of the app, and what workers tell of each; asked when workers are added.

    Nothing is connected before the first worker; `close`, or the end of a `with`, takes everything away
    but the exchanges that any worker leaves on RabbitMQ. When the broker goes away, the workers come back
    to it as real ones do. Two workers may have one name; on RabbitMQ they then share one mailbox.
    """

    def __init__(
        self,
        connection_url: str,
        *,
        control_exchange: str = "celery",
        event_exchange: str = "celeryev",
        options: Mapping[str, Any] | None = None,
        serializer: str = "json",
        accept: Iterable[str] = ("json",),
        tasks: Callable[[], Mapping[str, Mapping[str, str]]] = dict,
    ) -> None:
        self._url = connection_url
        self._options = dict(options or {})
        self._accept = tuple(accept)
        self._tasks = tasks
        self.serializer = serializer
        self._control_exchange = control_exchange
        self._event_exchange = event_exchange
        self._workers: dict[int, SimulatedWorker] = {}
        self._next = 1
        self._boxes: Mailboxes | None = None
        self._thread: threading.Thread | None = None
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = queue.SimpleQueue()
        self._due: list[tuple[float, int, Reply]] = []
        self._sequence = 0
        self._stopping = False
        self._closed = False
        self._events: list[Event] = []
        #: The broadcasts that workers got, by command: the tickets of those that want an answer.
        self.asked: dict[str, set[Any]] = {}
        self.clock = LamportClock()
        self.broker: dict[str, Any] = {}
        urls = connection_url.split(";")
        self.masked_url = ";".join(maybe_sanitize_url(url, mask="********") for url in urls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<fleet of {len(self._workers)} simulated workers>"

    def __iter__(self) -> Iterator[SimulatedWorker]:
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def worker(self, name: str, **state: Unpack[State]) -> SimulatedWorker:
        """Add a worker that answers from the moment this returns.

        Raises what kombu raises when the broker cannot be reached, or when another connection to
        RabbitMQ has a worker of this name.
        """
        return self._add({name: state})[0]

    def workers(self, count: int, name: str = "w{}@sim", **state: Unpack[State]) -> list[SimulatedWorker]:
        """Add `count` equal workers at once, named by their number from 1."""
        return self._add({name.format(number): state for number in range(1, count + 1)})

    def beat(self, name: str = "celerybeat@sim") -> SimulatedWorker:
        """Add a beat with remote control, as in Celery 5.7: its mailbox answers ping and nothing else."""
        return self.worker(name, only=("ping",))

    def remove(self, workers: Iterable[SimulatedWorker]) -> None:
        """Take the mailboxes of these workers away. Those that are gone already may be named."""
        addresses = [worker.address for worker in workers if self._workers.pop(worker.address, None)]
        if addresses and self._boxes is not None:
            self._do(lambda: self._boxes and self._boxes.shut(addresses))

    def close(self) -> None:
        """Stop all workers. May be called twice."""
        self._closed = True
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping = True
        self._wake()
        thread.join(SOCKET_TIMEOUT * 3 + LONGEST_WAIT)
        self._workers.clear()
        if thread.is_alive():
            raise RuntimeError("the simulated workers' thread did not end: is the broker frozen?")
        # Not by the thread itself: it may have ended while `wake` still rings.
        self._drop(self._boxes)
        self._boxes = None

    def announce(self, event: Event) -> None:
        """Have an event sent by the fleet's thread."""
        self._events.append(event)

    def _add(self, states: Mapping[str, State]) -> list[SimulatedWorker]:
        if self._closed:
            raise RuntimeError("this fleet is closed")
        made = []
        tasks = self._tasks()
        for name, state in states.items():
            made.append(SimulatedWorker(self, name, self._next, state, tasks))
            self._next += 1
        if self._thread is None:
            self._start()
        self._workers.update((worker.address, worker) for worker in made)
        names = {worker.address: worker.name for worker in made}
        try:
            self._do(lambda: self._boxes and self._boxes.open(names))
        except BaseException:
            for address in names:
                self._workers.pop(address, None)
            raise
        return made

    def _start(self) -> None:
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="simulated-workers", daemon=True
        )
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread = None
            raise

    def _do(self, job: Callable[[], Any]) -> None:
        """Run `job` in the fleet's thread, which owns the connections."""
        done: Future[None] = Future()
        self._jobs.put((job, done))
        self._wake()
        done.result(SOCKET_TIMEOUT * 5)

    def _wake(self) -> None:
        boxes = self._boxes
        if boxes is None:
            return
        # The thread may be dropping this very connection, and wakes by itself after LONGEST_WAIT.
        with suppress(Exception):
            boxes.wake()

    def _run(self, ready: Future[None]) -> None:
        try:
            self._boxes = self._connect()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            ready.set_exception(error)
            return
        ready.set_result(None)
        while not self._stopping:
            boxes = self._boxes
            try:
                self._turn(boxes)
            except boxes.errors:
                self._come_back(boxes)

    def _turn(self, boxes: Mailboxes) -> None:
        while not self._jobs.empty():
            job, done = self._jobs.get()
            try:
                job()
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
                done.set_exception(error)
            else:
                done.set_result(None)
        now = time.monotonic()
        wait = self._due[0][0] - now if self._due else LONGEST_WAIT
        for letter in boxes.fetch(min(max(wait, 0.0), LONGEST_WAIT)):
            self._read(letter)
        replies = []
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            replies.append(heappop(self._due)[2])
        if replies:
            boxes.send(replies)
        events, self._events = self._events, []
        for event in events:
            boxes.announce(self._event_exchange, event)

    def _read(self, letter: Letter) -> None:
        worker = self._workers.get(letter.address)
        if worker is None or not _addressed(worker.name, letter.body):
            return
        command = letter.body["method"]
        self.asked.setdefault(command, set()).add(letter.body.get("ticket"))
        if not worker.heeds(command):
            return
        reply_to = letter.body.get("reply_to")
        try:
            kind, encoding, payload = worker.serialised(command, letter.body.get("arguments") or {})
        except Shutdown:
            self._workers.pop(letter.address, None)
            if self._boxes is not None:
                self._boxes.shut([letter.address])
            return
        if not isinstance(reply_to, Mapping):
            return
        headers = {"ticket": letter.body.get("ticket"), "clock": self.clock.forward()}
        reply = Reply(reply_to["exchange"], reply_to["routing_key"], headers, kind, encoding, payload)
        self._sequence += 1
        heappush(self._due, (time.monotonic() + worker.delay, self._sequence, reply))

    def _connect(self) -> Mailboxes:
        boxes = mailboxes(self._url, self._options, self._control_exchange, self._accept)
        try:
            info = {**boxes.connection.info(), "transport_options": self._options, "heartbeat": 120.0}
            self.broker = {key: value for key, value in info.items() if key not in ("password", "alternates")}
            self.broker["alternates"] = []  # of a failover list they hold its passwords
        except BaseException:
            self._drop(boxes)
            raise
        return boxes

    def _come_back(self, broken: Mailboxes) -> None:
        self._drop(broken)
        while not self._stopping:
            try:
                boxes = self._connect()
            except Exception:  # noqa: BLE001 - gone is gone, in whatever words
                time.sleep(RECONNECT)
                continue
            try:
                boxes.open({worker.address: worker.name for worker in self._workers.values()})
            except boxes.errors:
                self._drop(boxes)
                time.sleep(RECONNECT)
                continue
            self._boxes = boxes
            return

    @staticmethod
    def _drop(boxes: Mailboxes | None) -> None:
        if boxes is None:
            return
        with suppress(*boxes.errors):
            boxes.close()


def _addressed(name: str, body: Mapping[str, Any]) -> bool:
    destination, pattern, matcher = body.get("destination"), body.get("pattern"), body.get("matcher")
    if destination:
        return name in destination
    if pattern and matcher:
        return bool(match(name, pattern, matcher))
    return True
