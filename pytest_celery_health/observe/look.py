"""One bounded, read-only visit to a target."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from pytest_celery_health.durations import spell
from pytest_celery_health.facts import (
    App,
    Ask,
    AskBeat,
    AskQueues,
    AskWorkers,
    Beat,
    Fact,
    Queues,
    Schedule,
    Snapshot,
    Unacked,
    Unseen,
    Workers,
)
from pytest_celery_health.masking import mask, masked_url, secrets_in
from pytest_celery_health.observe.clock import Deadline, epoch, monotonic
from pytest_celery_health.observe.context import Context
from pytest_celery_health.observe.sockets import Sockets
from pytest_celery_health.observe.target import Target

if TYPE_CHECKING:
    from pytest_celery_health.observe.connect import Link

T = TypeVar("T")

#: Seconds that a look gets to tidy up: after its deadline, when interrupted, and once its sockets are shut.
_GRACE = 0.12
_INTERRUPTED = 0.6
_AFTER_CUT = 0.05


@dataclass(frozen=True)
class Look:
    """What one visit saw, and what it cost.

    took: seconds. received: bytes of replies, without the broker's and TLS's framing. swept: leftovers of our
    own killed looks that this one removed.
    """

    snapshot: Snapshot
    took: float
    received: int = 0
    swept: int = 0


def look(target: Target, asks: Iterable[Ask], *, deadline: float) -> Look:
    """See every fact that `asks` name, within `deadline` seconds and a quarter of one.

    Never raises for the target's trouble: what was not seen is `Unseen(why)`, passwords masked.
    """
    prepare(target.url)
    started = monotonic()
    visit = _Visit(target, tuple(asks), Deadline(deadline))
    # Not a ThreadPoolExecutor: its threads are joined at exit, and one that hangs would hang the exit.
    thread = threading.Thread(target=visit.run, name="celery-health look", daemon=True)
    thread.start()
    try:
        visit.over.wait(deadline)
    except BaseException:
        # Ctrl-C: nobody waits for a verdict, so there is time to tidy up.
        visit.end(_INTERRUPTED)
        raise
    visit.end(_GRACE)
    return Look(visit.snapshot(), monotonic() - started, visit.received, visit.swept)


def prepare(url: str = "") -> None:
    """Import what a look at a broker needs, which is no part of its deadline."""
    for name in ("beat", "connect", "fleet", "queues"):
        import_module(f"{__package__}.{name}")
    if url:
        from kombu.connection import Connection

        with suppress(Exception):  # the look says what is wrong with it
            Connection(url).get_transport_cls()


class _Visit:
    """What the look's thread does. It only adds to `facts`, so that others may read them at any time."""

    def __init__(self, target: Target, asks: tuple[Ask, ...], deadline: Deadline) -> None:
        self.target = target
        self.asks = asks
        self.deadline = deadline
        self.cancelled = threading.Event()
        # Not Thread.join(): interrupted by Ctrl-C, Python 3.11 takes the thread for ended.
        self.over = threading.Event()
        self.received = 0
        self.swept = 0
        self._facts: dict[object, Fact] = {}
        self._unseen: dict[type, Unseen] = {}
        self._link: Link | None = None
        # A heartbeat that is being read from a server of its own, and the sockets to such servers.
        self._elsewhere: AskBeat | None = None
        self._further: list[Sockets] = []
        self._cut = False
        self._workers_asks = tuple(ask for ask in asks if isinstance(ask, AskWorkers))
        self._queues_asks = tuple(ask for ask in asks if isinstance(ask, AskQueues))
        self._beats = tuple(dict.fromkeys(ask for ask in asks if isinstance(ask, AskBeat)))

    def run(self) -> None:
        try:
            self._run()
        finally:
            self.over.set()

    def _run(self) -> None:
        self._from_app()
        if not (self._workers_asks or self._queues_asks or self._beats):
            return
        with ExitStack() as stack:
            try:
                self._see(stack)
            except Exception as trouble:  # noqa: BLE001 - a look reports every trouble, and raises none
                self._fail(self._because(trouble))

    def end(self, grace: float) -> None:
        """Called from the thread that waits: lets the visit tidy up, then shuts its sockets."""
        if not self.over.is_set():
            self.cancelled.set()
            self.over.wait(0 if self._link is not None and self._link.opening else grace)
        if not self.over.is_set():
            self._cut = True
            if self._link is not None:
                self._link.cut()
            for sockets in tuple(self._further):
                sockets.shut()
            self.over.wait(_AFTER_CUT)

    def snapshot(self) -> Snapshot:
        facts = dict(self._facts)
        unseen = dict(self._unseen)
        cut = "" if self._link is None else self._link.late
        waited = f"no answer within {spell(self.deadline.seconds)} from"
        late = Unseen(cut or f"{waited} {masked_url(self.target.url)}")
        for kind in self._asked_kinds() - {type(fact) for fact in facts.values()}:
            unseen.setdefault(kind, late)
        if Queues in unseen:
            unseen[Unacked] = unseen[Queues]
        for ask in self._beats:
            own = Unseen(f"{waited} {masked_url(ask.url)}") if ask == self._elsewhere else None
            facts.setdefault(ask, Beat(own or unseen.get(Beat, late), ask.source, url=ask.url))
        # An unnamed source takes the first Beat there is.
        order = sorted(facts, key=lambda key: isinstance(key, AskBeat) and bool(key.source))
        return Snapshot(*(facts[key] for key in order), now=_now(), target=self.target.name, unseen=unseen)

    def _asked_kinds(self) -> set[type]:
        """Of the facts that there is one of at most."""
        kinds = {kind for ask in self.asks for kind in ask.kinds}
        return kinds - {Beat, Unacked}

    def _from_app(self) -> None:
        app = self.target.app
        missing = Unseen(
            self.target.app_unseen or 'no app at hand: set app = "module:app" in [tool.celery-health]'
        )
        kinds = self._asked_kinds()
        if Schedule in kinds:
            if app is None:
                self._unseen[Schedule] = missing
            elif app.schedule_unseen:
                self._unseen[Schedule] = Unseen(app.schedule_unseen)
            else:
                self._facts[Schedule] = Schedule(app.schedule)
        if App in kinds:
            if app is None:
                self._unseen[App] = missing
            else:
                self._facts[App] = App(app.name, app.tasks)

    def _see(self, stack: ExitStack) -> None:
        link = self._connect(stack)
        connection = link if isinstance(link, Unseen) else link.connection
        workers: Workers | Unseen = Unseen("the workers were not asked")
        ask: Callable[[frozenset[str]], Workers | Unseen] = lambda _: workers  # noqa: E731
        if isinstance(link, Unseen):
            workers = link
        else:
            ask = self._asker(link, stack)
            if self._workers_asks or self._queues_asks or self._asks_ping:
                workers = ask(frozenset())
        if Workers in self._asked_kinds():
            self._keep(Workers, workers)
        context = Context(
            self.target, connection, self.deadline, workers, ask, self._count, self._further_sockets
        )
        schedule = self._facts.get(Schedule)
        if isinstance(schedule, Schedule):
            found = self._guarded(partial(_with_bindings, context, schedule))
            self._facts[Schedule] = schedule if isinstance(found, Unseen) else found
        if self._queues_asks:
            queues = partial(_queues, context, self._queues_asks)
            self._keep(Queues, link if isinstance(link, Unseen) else self._guarded(queues))
        self._see_beats(context)

    def _see_beats(self, context: Context) -> None:
        # What may hang keeps nothing else from being read: the project's code, then servers of their own.
        calls = [
            threading.Thread(target=self._see_beat, args=(context, one), daemon=True)
            for one in self._beats
            if one.source.startswith("call:")
        ]
        for thread in calls:
            thread.start()
        for one in sorted(self._beats, key=lambda ask: bool(ask.url)):
            if not one.source.startswith("call:"):
                self._elsewhere = one if one.url and not self.target.sealed else None
                self._see_beat(context, one)
        for thread in calls:
            thread.join()

    def _see_beat(self, context: Context, one: AskBeat) -> None:
        beat: Beat | Unseen
        if isinstance(context.connection, Unseen) and self._needs_broker(one.source, one.url):
            beat = context.connection
        else:
            beat = self._guarded(partial(_beat, context, one.source, one.url))
        if isinstance(beat, Unseen):
            beat = Beat(beat)
        if self._cut and isinstance(beat.last_seen, Unseen):
            return  # what was raised is only that we shut the sockets
        self._facts[one] = replace(beat, source=one.source, url=one.url, read_at=_now())

    def _connect(self, stack: ExitStack) -> Link | Unseen:
        by_broker = any(self._needs_broker(ask.source, ask.url) for ask in self._beats)
        if not (self._workers_asks or self._queues_asks or by_broker):
            return Unseen("the broker was not asked")
        try:
            from pytest_celery_health.observe.connect import Link

            link = Link(self.target, self.deadline)
            self._link = link
            stack.callback(link.close)
            # Without remote control there is nothing that a look could read either.
            if link.can_broadcast:
                link.open()
        except Exception as trouble:  # noqa: BLE001 - kombu, its transports and drivers raise what they like
            why = self._because(trouble)
            self._fail(why)
            return why
        return link

    @property
    def _asks_ping(self) -> bool:
        return any(ask.source in ("", "ping") for ask in self._beats)

    def _needs_broker(self, source: str, url: str) -> bool:
        return not source.startswith(("file:", "call:")) and (not url or self.target.sealed)

    def _asker(self, link: Link, stack: ExitStack) -> Callable[[frozenset[str]], Workers | Unseen]:
        """Asks the workers what all asks need, or (for a second time) only the details it is given."""
        from pytest_celery_health.observe.fleet import Fleet, Question

        fleet = Fleet(link, self.target, self.deadline, self.cancelled.is_set, stack, self._count)
        everything = Question.of(self._workers_asks, self._queues_asks, beat=self._asks_ping)

        def ask(details: frozenset[str]) -> Workers | Unseen:
            question = replace(everything, details=details) if details else everything
            try:
                return self._guarded(partial(fleet.ask, question))
            finally:
                self.swept = fleet.swept

        return ask

    def _guarded(self, read: Callable[[], T]) -> T | Unseen:
        """What `read` returns, or why it did not."""
        if self.cancelled.is_set() or self.deadline.passed:
            late = f"the deadline of {spell(self.deadline.seconds)} passed before it was looked at"
            return Unseen(f"{late}, on {masked_url(self.target.url)}" if self.target.url else late)
        try:
            return read()
        except Exception as trouble:  # noqa: BLE001 - a look reports every trouble, and raises none
            return self._because(trouble)

    def _because(self, trouble: Exception) -> Unseen:
        from pytest_celery_health.observe.connect import UnreachableError
        from pytest_celery_health.observe.fleet import FleetError

        if isinstance(trouble, (UnreachableError, FleetError)):
            return Unseen(str(trouble))
        if self._link is None:
            return Unseen(mask(f"{type(trouble).__name__}: {trouble}", secrets_in(self.target.url)))
        return Unseen(self._link.explain(trouble))

    def _keep(self, kind: type, found: Fact | Unseen) -> None:
        if isinstance(found, Unseen):
            self._unseen[kind] = found
        else:
            self._facts[kind] = found

    def _fail(self, why: Unseen) -> None:
        for kind in (Workers, Queues, Beat):
            if kind not in self._facts:
                self._unseen.setdefault(kind, why)

    def _further_sockets(self) -> Sockets:
        self._further.append(Sockets())
        return self._further[-1]

    def _count(self, received: int) -> None:
        self.received += received


def _now() -> datetime:
    return datetime.fromtimestamp(epoch(), timezone.utc)


def _queues(context: Context, asks: tuple[AskQueues, ...]) -> Queues | Unseen:
    from pytest_celery_health.observe.queues import read

    return read(context, asks)


def _with_bindings(context: Context, schedule: Schedule) -> Schedule:
    from pytest_celery_health.observe.queues import with_bindings

    return with_bindings(context, schedule)


def _beat(context: Context, source: str, url: str) -> Beat | Unseen:
    from pytest_celery_health.observe.beat import read

    return read(context, source, url)
