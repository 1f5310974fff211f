"""Calls of a function of the project that publishes, while the broker is well and while it is not.

In each world it is called in two processes of its own: one in which nothing was published before, and one
that has a connection from before. What it publishes is counted at the broker itself, behind the proxy.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_celery_health.facts import AskPublishers, Published, Publishing
from pytest_celery_health.masking import mask, secrets_in
from pytest_celery_health.observe.clock import monotonic
from pytest_celery_health.project.info import AppSpec, ProjectError
from pytest_celery_health.project.sessions import Session, Sessions
from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.faults import FAULTS, FaultError
from pytest_celery_health.sandbox.faults.base import BACKEND, BROKER
from pytest_celery_health.sandbox.queues.taken import Message, take
from pytest_celery_health.sandbox.seal import Refusal
from pytest_celery_health.sandbox.spec import SandboxSpec
from pytest_celery_health.sandbox.world import World

_WORK = "pytest_celery_health.project.child.publisher:publisher"
#: Where Celery talks to result backends.
_BACKENDS = "/celery/backends/"
#: Seconds that the app gets to load.
_LOAD = 30.0
#: Seconds beyond its own that a call gets, to be seen to be late rather than hung.
_GRACE = 0.5
#: Seconds that a call which hung gets to go on once the broker is well.
_COMES_BACK = 2.0
#: Seconds that `then` may take, for which nobody waits.
_LATER = 10.0
#: Seconds in which the message of a call that has returned must arrive.
_ARRIVES = 2.0
#: Seconds without a new message after which no more is expected.
_QUIET = 0.1
_TICK = 0.02


class Publishers:
    """The world in which publishers of one app are tried, one after the other.

    `close()` may be called from another thread; who is at it then gets an error.
    """

    def __init__(self, spec: SandboxSpec, app: AppSpec) -> None:
        self._world = World(spec, app)
        self._app = app
        self._lock = threading.Lock()
        self._sessions: Sessions | None = None
        self._closed = False

    def published(self, ask: AskPublishers) -> Published:
        """What becomes of the calls. Raises ProjectError, SandboxError."""
        with self._lock:
            if self._closed:
                raise SandboxError("the world was closed")
            if self._sessions is None:
                environ = self._world.environ
                self._sessions = Sessions(
                    self._app, _WORK, timeout=_LOAD, sealed=self._world.seal, environ=environ
                )
            return _Trial(self._world, self._sessions, ask).published()

    def refusals(self) -> list[Refusal]:
        """The connections that calls were refused."""
        return self._world.sandbox.refusals() if self._world.started else []

    def close(self) -> None:
        """End everything."""
        self._closed = True
        if self._sessions is not None:
            self._sessions.close()
        with self._lock, suppress(SandboxError, TimeoutError):
            self._world.close()


@dataclass
class _Call:
    """A session, and what became of the call in it."""

    session: Session
    process: str
    queues: set[str] = field(default_factory=set)
    said: Mapping[str, Any] = field(default_factory=dict)
    again: Mapping[str, Any] = field(default_factory=dict)
    arrived: list[Message] = field(default_factory=list)
    arrived_again: list[Message] = field(default_factory=list)


class _Trial:
    def __init__(self, world: World, sessions: Sessions, ask: AskPublishers) -> None:
        self._world = world
        self._sessions = sessions
        self._ask = ask
        told = sessions.told()
        self._queues: set[str] = set(told["queues"])
        self._backend_too = told["backend"] == "broker"
        self._secrets = secrets_in(world.url)
        #: The messages of a call while the broker is well.
        self._usual: Counter[str] = Counter()
        #: What its threads and tasks came to then.
        self._usual_rest: Mapping[str, Any] = {}

    def published(self) -> Published:
        ask = self._ask
        self._settled()  # what others have left
        with self._open() as session:
            call = _Call(session, "used")
            self._call([call])
            messages = self._settled()
            # Else one at a time, to know whose a message is.
            told_apart = not ask.then and all(message.pid == session.pid for message in messages)
            call.arrived = messages
            self._usual = _by_task(messages)
            self._usual_rest = call.said.get("rest", {})
            healthy = self._told("healthy", call)
        seen: list[Publishing] = []
        if healthy.ended == "returned" and healthy.arrived:
            for world in ask.worlds:
                seen += self._tried(world, [("used", "new")] if told_apart else [("used",), ("new",)])
        broker = "amqp" if self._world.url.startswith("amqp") else "redis"
        return Published(healthy, tuple(seen), ask.call, ask.then, ask.within, broker)

    def _tried(self, world: str, groups: Iterable[Sequence[str]]) -> list[Publishing]:
        try:
            return [each for group in groups for each in self._in(world, group)]
        except FaultError as error:
            return [Publishing(world, impossible=str(error))]
        except (SandboxError, ProjectError) as error:
            return [Publishing(world, unseen=str(error).partition("\n")[0])]

    def _in(self, world: str, group: Sequence[str]) -> list[Publishing]:
        with ExitStack() as stack:
            calls = [_Call(stack.enter_context(self._open()), process) for process in group]
            for call in calls:
                if call.process == "used":
                    self._call([call])
            self._settled(sum(call.process == "used" for call in calls))
            with ExitStack() as held:
                for fault in self._faults(world):
                    held.enter_context(self._world.hold(fault))
                self._make(calls)
                self._rest(calls)
                self._find_hung_threads(calls)
            self._end(calls)
            self._count(calls, "arrived")
            self._find_late_threads(calls)
            back = [call for call in calls if call.said["ended"] in ("returned", "refused", "raised")]
            self._call(back, "again")
            self._count(back, "arrived_again")
            return [self._told(world, call) for call in calls]

    def _faults(self, world: str) -> list[str]:
        """The fault, and that of the app's result backend if it is the same server."""
        other = world.replace(BROKER, BACKEND, 1)
        return [world, other] if self._backend_too and other in FAULTS and other != world else [world]

    # A call.

    def _open(self) -> Session:
        return self._sessions.open(function=self._ask.call, then=self._ask.then)

    def _call(self, calls: Sequence[_Call], which: str = "said") -> None:
        """Call it in a world that is well, and then what publishes later."""
        self._make(calls, which)
        self._rest(calls, which, kept=self._usual_rest.get("left", 0))
        self._end(calls, which)

    def _make(self, calls: Sequence[_Call], which: str = "said") -> None:
        over = monotonic() + self._ask.within + _GRACE
        for call in calls:
            call.session.begin("function", gives_up=self._ask.within)
        for call in calls:
            self._hear(call, which, over - monotonic())

    def _rest(self, calls: Sequence[_Call], which: str = "said", kept: int = 0) -> None:
        """Until the threads and tasks of calls that have ended do so, too; `kept` of them never do."""
        over = monotonic() + self._ask.within + _GRACE
        ended = [call for call in calls if getattr(call, which)["ended"] not in ("hung", "died")]
        for call in ended:
            with suppress(ProjectError):  # told by its answer
                call.session.begin("rest", gives_up=self._ask.within, kept=kept)
        for call in ended:
            said: dict[str, Any] = {}
            try:
                rest = call.session.answer(max(over - monotonic(), 0))
                if rest is None:
                    said = {"ended": "hung", "at": call.session.where(), "took": self._ask.within}
                else:
                    said = {"rest": rest}
                    call.queues.update(rest["queues"])
            except ProjectError as error:
                said = {"ended": "died", "error": str(error)}
            setattr(call, which, {**getattr(call, which), **said})

    def _find_hung_threads(self, calls: Iterable[_Call]) -> None:
        for call in calls:
            rest = call.said.get("rest", {"at": ()})
            at = [each for each in rest["at"] if each not in self._usual_rest["at"]]
            if at and call.said["ended"] == "returned":
                call.said = {**call.said, "thread": True, "at": at[0]}

    def _find_late_threads(self, calls: Iterable[_Call]) -> None:
        """Those that have begun to publish only when the broker was well again."""
        for call in calls:
            rest = call.said.get("rest", {"left": 0})
            if (
                rest["left"]
                and call.said["ended"] == "returned"
                and rest["begun"] < self._usual_rest["begun"]
            ):
                now = call.session.ask("begun", within=_LATER) or rest
                call.said = {**call.said, "late": now["begun"] > rest["begun"]}

    def _end(self, calls: Sequence[_Call], which: str = "said") -> None:
        for call in calls:
            said = getattr(call, which)
            if said["ended"] == "hung":
                self._go_on(call)
            elif self._ask.then and said["ended"] != "died":
                self._publish_later(call)

    def _hear(self, call: _Call, which: str, within: float) -> None:
        try:
            said = call.session.answer(max(within, 0))
        except ProjectError as error:
            said = {"ended": "died", "error": str(error)}
        if said is None:
            said = {"ended": "hung", "at": call.session.where(), "took": self._ask.within}
        if said.get("took", 0.0) >= self._ask.within:
            said = {**said, "backend": call.session.was_in(_BACKENDS)}
        call.queues.update(said.get("queues", ()))
        setattr(call, which, said)

    def _go_on(self, call: _Call) -> None:
        with suppress(ProjectError):
            said = call.session.answer(_COMES_BACK) or {}
            call.queues.update(said.get("queues", ()))

    def _publish_later(self, call: _Call) -> None:
        said = call.session.ask("then", within=_LATER, gives_up=_LATER)
        if said is None:
            raise ProjectError(
                f"{self._ask.then} did not end within {_LATER:g} s; it was at {call.session.where()}"
            )
        call.queues.update(said["queues"])
        if said["ended"] == "raised":
            raise ProjectError(f"{self._ask.then} raised {said['error']}")

    # Its messages.

    def _count(self, calls: Sequence[_Call], which: str) -> None:
        for call in calls:
            self._queues |= call.queues
        messages: list[Message] = []
        over = monotonic() + _ARRIVES
        while True:
            messages += self._settled()
            for call in calls:
                mine = [each for each in messages if len(calls) == 1 or each.pid == call.session.pid]
                setattr(call, which, mine)
            if monotonic() > over or not any(self._lacks(call, which) for call in calls):
                return

    def _lacks(self, call: _Call, which: str) -> bool:
        """Whether a message is still to come, as the call returned: somebody else may be at it."""
        said = call.said if which == "arrived" else call.again
        return said["ended"] == "returned" and bool(self._usual - _by_task(getattr(call, which)))

    def _settled(self, calls: int = 0) -> list[Message]:
        """The messages there are, once those of so many calls have come, and no more do."""
        url = self._world.sandbox.launch.url
        wanted = calls * self._usual.total()
        found: list[Message] = []
        over = monotonic() + _ARRIVES
        quiet = monotonic() + _QUIET
        while monotonic() < quiet or (len(found) < wanted and monotonic() < over):
            more = take(url, self._queues)
            if more:
                found += more
                quiet = monotonic() + _QUIET
            time.sleep(_TICK)
        return found

    def _told(self, world: str, call: _Call) -> Publishing:
        again = None
        if call.again:
            again = self._plain(world, call.process, call.again, call.arrived_again)
        return replace(self._plain(world, call.process, call.said, call.arrived), again=again)

    def _plain(
        self, world: str, process: str, said: Mapping[str, Any], arrived: Sequence[Message]
    ) -> Publishing:
        if said.get("late"):
            late = f"more than {self._ask.within:g} s after it"
            why = f"what the call started publishes {late}, when {world} is over; raise answers_within"
            return Publishing(world, process, unseen=why)
        thread = said.get("thread", False)
        return Publishing(
            world,
            process,
            "hung" if thread else said["ended"],
            self._ask.within if thread else said.get("took", 0.0),
            mask(said.get("error", ""), self._secrets),
            said.get("at", ""),
            said.get("backend", False),
            dict(_by_task(arrived)),
            thread=thread,
            resent=dict(_by_task(arrived) - _by_task(_once(arrived))),
        )


def _by_task(messages: Iterable[Message]) -> Counter[str]:
    return Counter(message.task for message in messages)


def _once(messages: Iterable[Message]) -> list[Message]:
    """Without those of which another has the id."""
    known = {message.id: message for message in messages if message.id}
    return [*known.values(), *(message for message in messages if not message.id)]
