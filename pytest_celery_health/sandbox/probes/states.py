"""The worlds in which a probe is called: faults, and what else a health check must see for what it is.

A state is a function, and a line in `DESERTED` or `HEARTBEATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_celery_health.facts import Probe, RunningTask, Setting
from pytest_celery_health.project.child.load import LoadError, attribute
from pytest_celery_health.project.info import ProjectError
from pytest_celery_health.project.probe import Caller
from pytest_celery_health.project.sessions import Sessions
from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.faults import FAULTS, Fault, FaultError
from pytest_celery_health.sandbox.faults.base import BACKEND, BROKER, HOST, PASSWORD
from pytest_celery_health.sandbox.probes import heartbeats
from pytest_celery_health.sandbox.world import World

if TYPE_CHECKING:
    from redis import Redis

    from pytest_celery_health.sandbox.fleet.simulated import Fleet

_DAY = 86400.0
#: Seconds by which a heartbeat is younger than its limit, so that it is still when the probe has read it.
_MARGIN = 5.0
#: The same, for a task: a probe takes longer to ask workers.
_TASK_MARGIN = 30.0
_AHEAD = 3600.0
#: Seconds in which the project's own beat and worker write a first heartbeat.
_FIRST = 15.0


@dataclass
class Scene:
    """What states are made of: the world, and a process that has loaded the app."""

    world: World
    loaded: Sessions
    #: What probes see as the time, in seconds since 1970; None is the real one.
    clock: float | None = None
    _readers: dict[str, Caller] = field(default_factory=dict)
    #: Heartbeats that nobody wrote in time, and what is said of them.
    _missed: dict[str, str] = field(default_factory=dict)
    _alone: str = ""

    @property
    def app(self) -> Mapping[str, Any]:
        """What the app says of itself."""
        return self.loaded.told()

    def queue(self, setting: Setting) -> str:
        """The queue that is filled."""
        return setting.queue or str(self.app["default_queue"])

    @contextmanager
    def fleet(self) -> Iterator[Fleet]:
        """Simulated workers, for as long as there are no real ones."""
        from pytest_celery_health.sandbox.fleet.simulated import Fleet

        launch = self.world.sandbox.launch
        options = {**self.app["broker_transport_options"], **launch.options}
        exchanges = {name: self.app[name] for name in ("control_exchange", "event_exchange")}
        tasks = self.app["registered"]
        with Fleet(launch.url, options=options, tasks=lambda: tasks, **exchanges) as fleet:
            yield fleet

    def workers(self, fleet: Fleet, **state: Any) -> None:
        """As many as the contract has, that consume what these would."""
        queues = self.world.spec.queues or tuple(self.app["queues"])
        for name in self.world.members.all:
            fleet.worker(f"{name}@sandbox", queues=queues, **state)
            state.pop("active", None)  # of the first

    def heartbeat(self, setting: Setting) -> heartbeats.Heartbeat:
        """Beat's heartbeat. Raises FaultError where it is none that could be made older."""
        scheme, _, rest = setting.heartbeat.partition(":")
        if not setting.heartbeat:
            raise FaultError(
                'no `beat` row says where the heartbeat is; write heartbeat = "redis:KEY" there, or here'
            )
        if scheme == "file":
            assert self.world.app is not None
            return heartbeats.File(self.world.app.root / Path(rest).expanduser())
        if scheme == "call":
            return heartbeats.Called(rest, partial(self._told, rest), partial(setattr, self, "clock"))
        if scheme != "redis":
            raise FaultError(
                f"the heartbeat {setting.heartbeat} cannot be made older; redis:, file: and call: can"
            )
        url = self.world.sandbox.launch.url
        if not url.startswith("redis"):
            raise FaultError(f"the sandbox's broker has no key {rest}")
        if setting.url and setting.url.removeprefix("env:") not in self.world.spec.redirect_env:
            raise FaultError(f"{setting.url} does not lead into the sandbox; name it in redirect_env")
        return heartbeats.Key(self.redis(), rest)

    def redis(self) -> Redis:
        """A client of the broker."""
        from redis import Redis

        return Redis.from_url(self.world.sandbox.launch.url, socket_timeout=5)

    def first(self, heartbeat: heartbeats.Heartbeat, setting: Setting) -> None:
        """Wait until beat and a worker have written it. Raises SandboxError, once and for all."""
        name = setting.heartbeat
        if name not in self._missed:
            try:
                self.world.wait(heartbeat.is_there, f"beat and a worker wrote no {name}", _FIRST)
            except SandboxError as error:
                self._missed[name] = f"{error}: {self._alone}" if self._alone else str(error)
        if name in self._missed:
            raise SandboxError(self._missed[name])

    def _told(self, function: str) -> object:
        """What a function of the project returns, called in a process that is kept."""
        reader = self._readers.get(function)
        if reader is None:
            reader = self._readers[function] = Caller(self.loaded, Probe(call=function))
        try:
            value, self._alone = reader.told()
        except ProjectError as error:
            self._readers.pop(function).close()
            raise FaultError(f"{function}(): {error}") from error
        return value


#: Yields what says whether it is so still, or None where it cannot be otherwise.
State = Callable[[Scene, Setting], AbstractContextManager[Callable[[], bool] | None]]


def _holding(count: Callable[[Setting], int]) -> State:
    @contextmanager
    def act(scene: Scene, setting: Setting) -> Iterator[None]:
        with Caller(scene.loaded, _NOTHING) as caller, scene.fleet() as fleet:
            scene.workers(fleet)
            caller.do("fill", queue=scene.queue(setting), count=count(setting))
            try:
                yield
            finally:
                caller.do("empty")

    return act


@contextmanager
def _staffed(scene: Scene, _: Setting) -> Iterator[None]:
    with scene.fleet() as fleet:
        scene.workers(fleet)
        yield


@contextmanager
def _beat_alone(scene: Scene, _: Setting) -> Iterator[None]:
    with scene.fleet() as fleet:
        fleet.beat("celerybeat@sandbox")
        yield


def _running(beyond: float) -> State:
    @contextmanager
    def act(scene: Scene, setting: Setting) -> Iterator[None]:
        task = RunningTask("celery_health.runs", running_for=setting.stuck_after + beyond)
        with scene.fleet() as fleet:
            scene.workers(fleet, active=[task])
            yield

    return act


def _aged(age: Callable[[float], float | None]) -> State:
    @contextmanager
    def act(scene: Scene, setting: Setting) -> Iterator[Callable[[], bool]]:
        heartbeat = scene.heartbeat(setting)
        scene.world.start("beat", "workers")
        scene.first(heartbeat, setting)
        with heartbeats.held(heartbeat, age(setting.fresh_for)):
            yield heartbeat.is_ours

    return act


@contextmanager
def _unwritten(scene: Scene, setting: Setting) -> Iterator[Callable[[], bool]]:
    """Before beat's first heartbeat: what only a function tells cannot be taken away."""
    heartbeat = scene.heartbeat(setting)
    with ExitStack() as stack:
        if heartbeat.is_there() and scene.world.sandbox.launch.url.startswith("redis"):
            stack.enter_context(heartbeats.aside(scene.redis()))
        if heartbeat.is_there():
            raise FaultError(
                f"{setting.heartbeat} tells of a heartbeat that no beat here has sent: it is not kept in the"
                " sandbox's Redis, so it cannot be taken away"
            )
        yield lambda: not heartbeat.is_there()


#: Without a probe, for what a world needs to be done by the app's own means.
_NOTHING = Probe(call="builtins:dict")

#: Those that need a broker without real workers, and those of a world that has beat and workers.
DESERTED: dict[str, State] = {
    "new_broker": _staffed,
    "queue_filled": _holding(lambda setting: setting.depth),
    "queue_drained": _holding(lambda _: 0),
    "beat_alone": _beat_alone,
    "task_runs": _running(-_TASK_MARGIN),
    "task_stuck": _running(1.0),
}
HEARTBEATS: dict[str, State] = {
    "heartbeat_young": _aged(lambda limit: max(limit - _MARGIN, limit / 2)),
    "heartbeat_old": _aged(lambda limit: limit + 1),
    "heartbeat_day_old": _aged(lambda _: _DAY),
    "heartbeat_second_ahead": _aged(lambda _: -1.0),
    "heartbeat_ahead": _aged(lambda _: -_AHEAD),
    "heartbeat_missing": _aged(lambda _: None),
    "heartbeat_garbage": _aged(lambda _: float("nan")),
}


#: The faults after which workers are started anew. After the last one nobody waits for them.
_UPHEAVALS = (
    "broker_fails_over",
    "broker_restarts_empty",
    "worker_killed",
    "warm_shutdown",
    "worker_busy_solo",
    "no_workers",
)


def fault(name: str) -> Fault:
    """The fault of this name, or a project's own. Raises FaultError, LoadError."""
    if ":" not in name:
        return FAULTS[name]
    found = attribute(name)
    if not isinstance(found, Fault):
        raise LoadError(f"{name} is no Fault")
    return found


def state(name: str, setting: Setting) -> State | None:
    """What makes this world, unless it is the healthy one or a fault."""
    if is_deserted(name, setting):
        return DESERTED.get(name, _unwritten)
    return HEARTBEATS.get(name)


def is_deserted(name: str, setting: Setting) -> bool:
    """Whether a world is made without real workers."""
    return name in DESERTED or (name == "heartbeat_missing" and setting.heartbeat.startswith("call:"))


def phase(name: str, setting: Setting) -> int:
    """When it is its turn: what needs no workers first, what takes workers long to get over last."""
    if is_deserted(name, setting):
        # Gauges that were set while the queue was full are read when it is drained.
        return 0 if name == "queue_drained" else -1
    if name == "":
        return 1
    if name in HEARTBEATS:
        return 2
    needs = set(FAULTS[name].needs) if name in FAULTS else set()
    if needs and needs <= {BROKER, BACKEND, PASSWORD, HOST} and name not in _UPHEAVALS:
        return 3
    return 5 + _UPHEAVALS.index(name) if name in _UPHEAVALS else 4
