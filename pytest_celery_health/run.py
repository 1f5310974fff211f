"""A health run of one target: what has to be looked at, the looks, and the verdicts. No pytest here."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_celery_health.checks import Check
from pytest_celery_health.contract.model import SANDBOX, Contract, ContractError
from pytest_celery_health.contract.read import mistaken
from pytest_celery_health.contract.targets import resolve
from pytest_celery_health.contract.third_party import asked, judged
from pytest_celery_health.facts import Ask, AskQueues, Snapshot, Unseen, merge
from pytest_celery_health.observe.look import Look, look, prepare
from pytest_celery_health.observe.target import Target, TargetError
from pytest_celery_health.project.describe import Asked, start_describing
from pytest_celery_health.project.info import AppInfo, AppSpec, ProjectError
from pytest_celery_health.sandbox import Sandbox, SandboxError, SpecError
from pytest_celery_health.share import Share
from pytest_celery_health.verdict import Verdict

if TYPE_CHECKING:
    from pytest_celery_health.experiments import Experiments
    from pytest_celery_health.sandbox.drills.crew import Drills
    from pytest_celery_health.sandbox.embedded import EmbeddedBrokers
    from pytest_celery_health.sandbox.seal import Refusal
    from pytest_celery_health.sandbox.world import World

#: Seconds that an app gets to load in a child process.
_LOAD = 30.0


@dataclass(frozen=True)
class Waiting:
    """How long to look again, in seconds, and how often."""

    up_to: float = 0.0
    every: float = 5.0


@dataclass(frozen=True)
class Planned:
    """A check of a pytest item's. A wait waits for those that `must_hold`."""

    check: Check
    nodeid: str
    must_hold: bool


@dataclass(frozen=True)
class Open:
    """A check that does not hold yet: its place among the planned, and how its verdict stands."""

    place: int
    nodeid: str
    status: str
    message: str


@dataclass(frozen=True)
class Progress:
    """One look of a wait: seconds since its start, how many checks it waits for, and which of them do not
    hold yet; whether it was the last."""

    elapsed: float
    up_to: float
    awaited: int
    open: tuple[Open, ...]
    over: bool

    @property
    def standing(self) -> frozenset[tuple[int, str]]:
        """What makes it another one than that of the look before, whatever ages and figures say."""
        return frozenset((each.place, each.status) for each in self.open)


@dataclass(frozen=True)
class Latest:
    """The run's one look, or the latest of its wait."""

    look: Look
    progress: Progress | None

    @property
    def final(self) -> bool:
        return self.progress is None or self.progress.over


@dataclass
class Run:
    """Everything about looking at one target in one process.

    `share` is what the processes of one pytest-xdist run have in common. `hooks` are the project's
    `pytest_celery_health_app`, as in `AppSpec`. `progress` is told of each look of a wait of this process.
    """

    contract: Contract
    target_name: str = SANDBOX
    waiting: Waiting = Waiting()
    hooks: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    share: Share | None = None
    progress: Callable[[Progress], None] = lambda _: None
    planned: list[Planned] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    seen: Look | None = None
    sandbox: Sandbox | None = None
    #: What only the app could show to be wrong with the contract.
    mistake: ContractError | None = None
    _describing: Asked[AppInfo] | None = None
    _experiments: Experiments | None = None
    _trouble: Unseen | None = None
    _drills: Drills | None = None
    _brokers: EmbeddedBrokers | None = None
    _world: World | None = None

    @property
    def live(self) -> bool:
        return self.target_name != SANDBOX

    @property
    def has_app(self) -> bool:
        """Whether it is said what the app is."""
        return bool(self.contract.app or self.hooks)

    @property
    def lacks_app(self) -> str:
        """What is wrong with the contract if no hook says what the app is, or ""."""
        return "" if self.hooks else self.contract.without_hook

    @property
    def needs_target(self) -> bool:
        """Whether a planned check has something to look at."""
        return any(asked(planned.check) for planned in self.planned)

    @property
    def needs_sandbox(self) -> bool:
        """Whether a planned check looks at what the sandbox starts."""
        asks = (ask for planned in self.planned for ask in asked(planned.check))
        return not self.live and any(not ask.tried for ask in asks)

    @property
    def checks(self) -> list[Check]:
        """Every check that the run knows of; pytest-xdist's controller plans none."""
        return [row.check for row in self.contract.rows] + [planned.check for planned in self.planned]

    def prepare(self, check: Check) -> Check:
        """`check` with what the contract says where the check is silent."""
        return self.contract.completed(check)

    def plan(self, check: Check, nodeid: str, *, must_hold: bool = True) -> None:
        """Have the run's look gather what `check` of that item needs; with `must_hold`, have a wait wait for
        it."""
        self.planned.append(Planned(self.prepare(check), nodeid, must_hold))

    def begin(self) -> None:
        """Start loading the app of a live target, so that it is ready when the first look needs it."""
        if self.live and self.has_app and self._describing is None:
            self._describing = start_describing(self._spec(), timeout=_LOAD)

    def verdict(self, check: Check) -> Verdict:
        """What the run's one look says of `check`."""
        if self.seen is None:
            self.seen = self._shared_look()
        return judged(self.prepare(check), self.seen.snapshot)

    def untold(self, verdict: Verdict) -> list[str]:
        """The details of `verdict` that no row has told before."""
        new = [each for each in verdict.details if each not in self.told]
        self.told.update(new)
        return [each for each in new if self.share is None or self.share.is_first(each)]

    def look(self, asks: Iterable[Ask]) -> Look:
        """A new look of its own; at nothing where nothing is asked."""
        asks = list(asks)
        seen = self._look([ask for ask in asks if not ask.tried])
        # After it: beat's heartbeat ages meanwhile.
        return self._with_experiments(seen, [ask for ask in asks if ask.tried])

    def _look(self, asks: list[Ask]) -> Look:
        if not asks:
            return Look(Snapshot(target=self.target_name), took=0.0)
        try:
            target = self.target()
        except (TargetError, ContractError) as error:
            unseen = {kind: Unseen(str(error)) for ask in asks for kind in ask.kinds}
            return Look(Snapshot(target=self.target_name, unseen=unseen), took=0.0)
        # A sampled interval is not spent on waiting for an answer.
        sampled = max((ask.progress_over or 0.0 for ask in asks if isinstance(ask, AskQueues)), default=0.0)
        result = look(target, asks, deadline=self.contract.deadline_of(self.target_name) + sampled)
        self.looks.append(result)
        return result

    def target(self) -> Target:
        """The target, made ready.

        Raises TargetError when its app does not load or its sandbox does not start, ContractError when
        the contract does not let it be looked at.
        """
        if self.mistake is not None:
            raise self.mistake
        if self._trouble is not None:
            raise TargetError(self._trouble.why)
        try:
            if self.live:
                return self._live_target()
            return self._sandbox().target
        except SpecError as error:
            if error.key == "hook":
                self.mistake = ContractError(error.mistakes)
                raise self.mistake from error
            table = "" if error.key == "app" else "sandbox"
            self.mistake = mistaken(self.contract, table, error.key, error.mistakes)
            raise self.mistake from error
        except (ProjectError, SandboxError) as error:
            self._trouble = Unseen(str(error))
            raise TargetError(str(error)) from error

    @property
    def drills(self) -> Drills:
        """Drills of the app, in workers of this process. Raises TargetError where there must be none."""
        if self.live:
            raise TargetError(
                f"a drill starts workers and sends to them; the target {self.target_name} is only looked at"
            )
        if not self.has_app:
            raise TargetError("no contract says what the app is, so there is nothing to drill")
        if self._drills is None:
            from pytest_celery_health.sandbox.drills.crew import Drills

            self._drills = Drills(self.contract.sandbox, self._spec())
        return self._drills

    @property
    def brokers(self) -> EmbeddedBrokers:
        """Brokers for tests of this process. Raises TargetError where there must be none."""
        if self.live:
            raise TargetError(
                f"it needs a broker of its own to send to; the target {self.target_name} is only looked at"
            )
        if self._brokers is None:
            from pytest_celery_health.sandbox.embedded import EmbeddedBrokers

            self._brokers = EmbeddedBrokers(self.contract.sandbox, self.contract.path.parent)
        return self._brokers

    @property
    def world(self) -> World:
        """A sandbox of this process in which faults are held. Raises TargetError where there must be none."""
        if self.live:
            raise TargetError(
                f"a fault breaks what it is held in; the target {self.target_name} is only looked at"
            )
        if self._world is None:
            from pytest_celery_health.sandbox.world import World

            self._world = World(self.contract.sandbox, self._spec() if self.has_app else None)
        return self._world

    def refusals(self) -> list[Refusal]:
        """The connections that sealed processes were refused."""
        worlds = (self.sandbox, self._experiments)
        return [refusal for world in worlds if world is not None for refusal in world.refusals()]

    def close(self) -> None:
        """End the sandbox, and whatever else is running."""
        for name in ("_drills", "_world", "_brokers", "_describing", "_experiments", "sandbox"):
            running = getattr(self, name)
            setattr(self, name, None)
            if running is not None:
                running.close()

    def _spec(self) -> AppSpec:
        return AppSpec(
            app=self.contract.app,
            root=self.contract.path.parent,
            path=self.path,
            env=self.contract.env,
            hooks=self.hooks,
            target=self.target_name,
        )

    def _live_target(self) -> Target:
        self.begin()
        info: AppInfo | None = None
        missing: ProjectError | None = None
        prepare()  # while the app loads
        if self._describing is not None:
            try:
                info = self._describing.result()
            except ProjectError as error:
                missing = error
        declared = self.contract.targets[self.target_name]
        if missing is not None and declared.broker == "app":
            raise missing
        spec = self._spec() if info is not None else None
        target = resolve(self.contract, self.target_name, os.environ, info, spec)
        return replace(target, app_unseen=str(missing)) if missing is not None else target

    def _with_experiments(self, seen: Look, asks: list[Ask]) -> Look:
        """`seen`, and what is found out by trying the app: in its sandbox if there is one."""
        if not asks:
            return seen
        if self.has_app:
            if self._experiments is None:
                from pytest_celery_health.experiments import Experiments

                self._experiments = Experiments(self.contract.sandbox, self._spec(), lambda: self.drills)
            tried, untried = self._experiments.facts(asks, self.sandbox)
        else:
            none = Unseen('no app at hand: set app = "module:app" in [tool.celery-health]')
            tried, untried = (), {kind: none for ask in asks for kind in ask.kinds}
        return replace(seen, snapshot=seen.snapshot.plus(tried, untried))

    def _sandbox(self) -> Sandbox:
        if self.sandbox is None:
            if not self.has_app:
                raise SandboxError("no contract says what the app is, so the sandbox has nothing to start")
            with nullcontext() if self.share is None else self.share.lock("sandbox"):
                if self.share is not None and self.share.sandbox.exists():
                    self.sandbox = Sandbox.attach(self.share.sandbox)
                else:
                    sandbox = Sandbox(self.contract.sandbox, self._spec())
                    sandbox.start()
                    self.sandbox = sandbox
                    if self.share is not None:
                        sandbox.share(self.share.sandbox)
        return self.sandbox

    def _shared_look(self) -> Look:
        if self.share is None:
            return self._wait()
        with self.share.lock("look"):
            latest: Latest | None = self.share.seen()
            return latest.look if latest is not None and latest.final else self._wait()

    def _wait(self) -> Look:
        """Look; under a wait, until everything holds or the time is over."""
        asks = merge(ask for planned in self.planned for ask in asked(planned.check))
        start = time.monotonic()
        while True:
            self.seen = self.look(asks)
            latest = Latest(self.seen, self._progress(self.seen, start) if self.waiting.up_to else None)
            if latest.progress is not None:
                self.progress(latest.progress)
            if self.share is not None:
                self.share.put(latest)
            if latest.final:
                return latest.look
            pause = self.waiting.every * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            threading.Event().wait(min(pause, max(start + self.waiting.up_to - time.monotonic(), 0)))

    def _progress(self, look: Look, start: float) -> Progress:
        awaited = [(place, planned) for place, planned in enumerate(self.planned) if planned.must_hold]
        open_ = tuple(
            Open(place, planned.nodeid, verdict.status, verdict.message())
            for place, planned in awaited
            if not (verdict := judged(planned.check, look.snapshot)).healthy
        )
        elapsed = time.monotonic() - start
        over = not open_ or elapsed >= self.waiting.up_to or self._trouble is not None
        return Progress(elapsed, self.waiting.up_to, len(awaited), open_, over)
