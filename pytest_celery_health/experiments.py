"""What is found out by trying the app in sealed processes of our own, where a look at a broker shows nothing.

An experiment is a function that begins it and returns what waits for its fact, and a line in `_EXPERIMENTS`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from pytest_celery_health.facts import (
    Ask,
    AskDrills,
    AskHandlers,
    AskLogs,
    AskMetrics,
    AskProbe,
    AskPublishers,
    AskTrials,
    Fact,
    Unseen,
)
from pytest_celery_health.observe.target import TargetError
from pytest_celery_health.project.describe import start_handlers, start_trials
from pytest_celery_health.project.info import AppSpec, ProjectError
from pytest_celery_health.sandbox import Sandbox, SandboxError
from pytest_celery_health.sandbox.brokerless import Brokerless
from pytest_celery_health.sandbox.client import KeeperGoneError
from pytest_celery_health.sandbox.drills.coverage import drilled
from pytest_celery_health.sandbox.drills.crew import Drills
from pytest_celery_health.sandbox.drills.log_lines import logged
from pytest_celery_health.sandbox.drills.metrics import scraped
from pytest_celery_health.sandbox.probes.prober import Prober
from pytest_celery_health.sandbox.publishing import Publishers
from pytest_celery_health.sandbox.seal import Refusal
from pytest_celery_health.sandbox.spec import SandboxSpec
from pytest_celery_health.sandbox.world import World

#: Seconds that an app gets to load in a child process.
_LOAD = 30.0
#: And beyond that, to have its handlers tried.
_TRY = 60.0

_TROUBLE = (ProjectError, SandboxError, KeeperGoneError, TargetError)

Waits = Callable[[], Fact | Unseen]


class Experiments:
    """The experiments of one app, each made once."""

    def __init__(self, spec: SandboxSpec, app: AppSpec, drills: Callable[[], Drills]) -> None:
        self.app = app
        self.drills = drills
        self._spec = spec
        self._sandbox: Sandbox | None = None
        self._brokerless: Brokerless | None = None
        self._world: World | None = None
        self._prober: Prober | None = None
        self._last_prober: Prober | None = None
        self._publishers: Publishers | None = None
        self._waits: dict[Ask, Waits] = {}
        self._found: dict[Ask, Fact | Unseen] = {}
        self._closers: list[Callable[[], None]] = []

    def facts(
        self, asks: Iterable[Ask], sandbox: Sandbox | None
    ) -> tuple[tuple[Fact, ...], dict[type, Unseen]]:
        """What was found out, and why the rest was not. For what is in the code no sandbox is started."""
        self._sandbox = sandbox
        asks = list(asks)
        for ask in asks:
            if ask not in self._waits and ask not in self._found:
                try:
                    self._waits[ask] = _EXPERIMENTS[type(ask)](self, ask)
                except _TROUBLE as error:
                    self._found[ask] = Unseen(str(error))
        if self._prober is not None:  # at work while the others are waited for
            self._prober.start()
            self._prober = None
        # Drills are played in this thread, one after another: the others are at work meanwhile.
        for ask in sorted(asks, key=lambda each: not isinstance(each, AskDrills)):
            if ask not in self._found:
                self._found[ask] = _result(self._waits.pop(ask))
        found = [(ask, self._found[ask]) for ask in asks]
        tried = tuple(fact for _, fact in found if not isinstance(fact, Unseen))
        return tried, {kind: why for ask, why in found if isinstance(why, Unseen) for kind in ask.kinds}

    def refusals(self) -> list[Refusal]:
        """The connections that were refused in the world without a broker."""
        return [] if self._brokerless is None else self._brokerless.refusals()

    def close(self) -> None:
        """End what is running."""
        while self._closers:
            self._closers.pop()()
        self._waits.clear()

    def world(self) -> Sandbox | Brokerless:
        """Where a child may load the app. Raises SandboxError."""
        if self._sandbox is not None:
            return self._sandbox
        if self._brokerless is None:
            self._brokerless = Brokerless(self._spec, self.app)
            self._closers.insert(0, self._brokerless.close)
        return self._brokerless

    def prober(self) -> Prober:
        """Who calls the probes of this look, all in one world."""
        if self._world is None:
            self._world = World(self._spec, self.app)
        if self._prober is None:
            if self._last_prober is not None:
                self._last_prober.release()
            self._prober = self._last_prober = Prober(self._world)
            self.closing(self._prober.close)
        return self._prober

    def crew(self) -> Drills:
        """A crew of its own, for drills beside others. Raises TargetError where there must be none."""
        crew = self.drills().another()
        self.closing(crew.close)
        return crew

    def publishers(self) -> Publishers:
        """Where publishers are tried."""
        if self._publishers is None:
            self._publishers = Publishers(self._spec, self.app)
            self.closing(self._publishers.close)
        return self._publishers

    def closing(self, close: Callable[[], None]) -> None:
        """Have this called at the end; it may be called twice."""
        self._closers.append(close)


def _result(wait: Waits) -> Fact | Unseen:
    try:
        return wait()
    except _TROUBLE as error:
        return Unseen(str(error))


def _handlers(lab: Experiments, _: AskHandlers) -> Waits:
    world = lab.world()
    assert world.seal is not None
    asked = start_handlers(lab.app, timeout=_LOAD, sealed=world.seal, environ=world.environ)
    lab.closing(asked.close)
    return asked.result


def _trials(lab: Experiments, ask: AskTrials) -> Waits:
    world = lab.world()
    assert world.seal is not None
    asked = start_trials(lab.app, ask, timeout=_LOAD + _TRY, sealed=world.seal, environ=world.environ)
    lab.closing(asked.close)
    return asked.result


def _drilled(lab: Experiments, ask: AskDrills) -> Waits:
    crew = lab.drills()
    return lambda: drilled(crew, ask)


def _scraped(lab: Experiments, ask: AskMetrics) -> Waits:
    crew = lab.crew()
    return _apart(lambda: scraped(crew, ask.plan), crew.close)


def _logged(lab: Experiments, ask: AskLogs) -> Waits:
    crew = lab.crew()
    return _apart(lambda: logged(crew, ask), crew.close)


def _probed(lab: Experiments, ask: AskProbe) -> Waits:
    return lab.prober().add(ask)


def _published(lab: Experiments, ask: AskPublishers) -> Waits:
    publishers = lab.publishers()
    return _apart(lambda: publishers.published(ask))


def _apart(find: Callable[[], Fact], close: Callable[[], None] | None = None) -> Waits:
    """Find it out while others are at work: most of them wait most of the time."""
    found: list[Fact | BaseException] = []

    def run() -> None:
        with ExitStack() as stack:
            if close is not None:
                stack.callback(close)
            try:
                found.append(find())
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
                found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait() -> Fact:
        thread.join()
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    return wait


_EXPERIMENTS: dict[type[Ask], Callable[[Experiments, Any], Waits]] = {
    AskDrills: _drilled,
    AskHandlers: _handlers,
    AskLogs: _logged,
    AskMetrics: _scraped,
    AskProbe: _probed,
    AskPublishers: _published,
    AskTrials: _trials,
}
