"""What is found out by trying the app in sealed processes of our own, where a look at a broker shows nothing.

An experiment is a function that begins it and returns what waits for its fact, and a line in `_EXPERIMENTS`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from pytest_celery_health.facts import Ask, AskDrills, AskHandlers, AskPublishers, AskTrials, Fact, Unseen
from pytest_celery_health.observe.target import TargetError
from pytest_celery_health.project.describe import start_handlers, start_trials
from pytest_celery_health.project.info import AppSpec, ProjectError
from pytest_celery_health.sandbox import Sandbox, SandboxError
from pytest_celery_health.sandbox.brokerless import Brokerless
from pytest_celery_health.sandbox.client import KeeperGoneError
from pytest_celery_health.sandbox.drills.coverage import drilled
from pytest_celery_health.sandbox.drills.crew import Drills
from pytest_celery_health.sandbox.publishing import Publishers
from pytest_celery_health.sandbox.seal import Refusal
from pytest_celery_health.sandbox.spec import SandboxSpec

#: Seconds that an app gets to load in a child process.
_LOAD = 30.0
#: And beyond that, to have its handlers tried.
_TRY = 60.0

_TROUBLE = (ProjectError, SandboxError, KeeperGoneError, TargetError)

Waits = Callable[[], Fact]


class Experiments:
    """The experiments of one app, each made once."""

    def __init__(self, spec: SandboxSpec, app: AppSpec, drills: Callable[[], Drills]) -> None:
        self.app = app
        self.drills = drills
        self._spec = spec
        self._sandbox: Sandbox | None = None
        self._brokerless: Brokerless | None = None
        self._waits: dict[Ask, Waits] = {}
        self._found: dict[Ask, Fact | Unseen] = {}
        self._closers: list[Callable[[], None]] = []
        self._publishers: Publishers | None = None

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
        for ask in asks:
            if ask not in self._found:
                self._found[ask] = _result(self._waits.pop(ask))
        found = [(ask, self._found[ask]) for ask in asks]
        tried = tuple(fact for _, fact in found if not isinstance(fact, Unseen))
        return tried, {kind: why for ask, why in found if isinstance(why, Unseen) for kind in ask.kinds}

    def refusals(self) -> list[Refusal]:
        """The connections that were refused in worlds of our own."""
        worlds = (self._brokerless, self._publishers)
        return [refusal for world in worlds if world is not None for refusal in world.refusals()]

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
    return lambda: drilled(lab.drills(), ask)


def _published(lab: Experiments, ask: AskPublishers) -> Waits:
    """Beside what else is tried: most of the time it waits for somebody who hangs."""
    publishers = lab.publishers()
    found: list[Fact | BaseException] = []

    def publish() -> None:
        try:
            found.append(publishers.published(ask))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            found.append(error)

    thread = threading.Thread(target=publish, name=f"celery-health {ask.call}", daemon=True)
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
    AskPublishers: _published,
    AskTrials: _trials,
}
