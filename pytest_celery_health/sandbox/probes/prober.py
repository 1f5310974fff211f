"""Calls probes in worlds: all of them in one world at a time, each call in a process of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

from pytest_celery_health.facts import Answer, AskProbe, Probed, Setting, Unseen
from pytest_celery_health.masking import mask
from pytest_celery_health.observe.clock import monotonic
from pytest_celery_health.project.child.load import LoadError
from pytest_celery_health.project.command import run_command
from pytest_celery_health.project.info import ProjectError
from pytest_celery_health.project.probe import WORK, Caller
from pytest_celery_health.project.sessions import Sessions
from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.client import KeeperGoneError
from pytest_celery_health.sandbox.faults import FaultError
from pytest_celery_health.sandbox.faults.base import BACKEND, BEAT, BROKER, HOST, WORKERS, ImpossibleError
from pytest_celery_health.sandbox.probes.states import HEARTBEATS, Scene, fault, is_deserted, phase, state
from pytest_celery_health.sandbox.probes.traces import Trace, new_since, traces_of
from pytest_celery_health.sandbox.proxy import ProxyError
from pytest_celery_health.sandbox.world import World

HEALTHY = ""
_FILLED = "queue_filled"
_LOAD = 30.0
#: How often a world is made anew that was not what it should be when the probes had been called.
_TRIES = 3
#: Seconds after which a call in the healthy world is not made again to see what it leaves.
_SLOW = 3.0
#: Seconds in which threads and connections that a call has given up may end by themselves.
_ENDS_SOON = 2.0
_TICK = 0.02
_TROUBLE = (
    FaultError,
    KeeperGoneError,
    LoadError,
    ModuleNotFoundError,
    OSError,
    ProjectError,
    ProxyError,
    RuntimeError,
    SandboxError,
)

#: A world by its name, and what of a setting makes a difference to it.
_Scene = tuple[str, Setting]


class Prober:
    """Has probes called in `world`, by a thread of its own once `start` was called."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asks: list[AskProbe] = []
        self._found: dict[AskProbe, dict[str, Answer]] = {}
        self._trouble: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._primed: dict[tuple[AskProbe, str], Caller] = {}
        #: Of a first call in the healthy world, what it left.
        self._usually: dict[AskProbe, Mapping[str, int]] = {}
        self._over = threading.Event()
        self._told = threading.Event()
        self._whole = threading.Event()

    def add(self, ask: AskProbe) -> Callable[[], Probed | Unseen]:
        """Have this called, too, and return what waits for its answers."""
        if ask not in self._asks:
            self._asks.append(ask)
        return lambda: self._result(ask)

    def start(self) -> None:
        """Begin. Nothing is added any more."""
        if self._thread is None and self._asks:
            self._found = {ask: {} for ask in self._asks}
            self._thread = threading.Thread(target=self._run, name="celery-health probes", daemon=True)
            self._thread.start()

    def release(self) -> None:
        """Have the world be whole again, for others, when all is told."""
        self._whole.set()
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """End it, and its world."""
        self._over.set()
        self._world.close()
        self.release()

    def _result(self, ask: AskProbe) -> Probed | Unseen:
        self.start()
        self._told.wait()
        if isinstance(self._trouble, _TROUBLE):
            return Unseen(mask(str(self._trouble)))
        if self._trouble is not None:
            raise self._trouble
        return Probed(ask.probe, tuple(self._found[ask].values()), ask.setting)

    # In its own thread.

    def _run(self) -> None:
        try:
            self._run_all()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._trouble = error
        finally:
            self._told.set()

    def _run_all(self) -> None:
        with ExitStack() as stack:
            world = self._world
            environ = world.environ
            self._url = environ["CELERY_BROKER_URL"]
            loaded = stack.enter_context(self._load(environ))
            self._scene = Scene(world, loaded)
            stack.callback(self._drop_primed)
            scenes = sorted(self._scenes(), key=lambda pair: phase(*pair))
            deserted = [pair for pair in scenes if is_deserted(*pair)]
            if not deserted:  # while the app is loaded there
                self._start()
            self._traces = traces_of(world, loaded.told()["queues"])
            stack.callback(self._traces.close)
            if deserted:
                with world.hold("no_workers") if world.members.started else nullcontext():
                    self._play_all(deserted)
            self._play_all([pair for pair in scenes if not is_deserted(*pair)], last=scenes[-1])

    def _start(self) -> None:
        self._world.start(WORKERS, *([BEAT] if self._world.spec.beat else []))

    def _scenes(self) -> list[_Scene]:
        """The worlds, each once for the settings that make a difference to it."""
        found = {(HEALTHY, Setting()): None}
        for ask in self._asks:
            found |= {(world, _relevant(world, ask.setting)): None for world in ask.worlds}
            if ask.probe.gauge:
                found[_FILLED, _relevant(_FILLED, ask.setting)] = None
        return list(found)

    def _play_all(self, scenes: list[_Scene], last: _Scene | None = None) -> None:
        for name, setting in scenes:
            if self._over.is_set():
                return
            asks = [
                ask
                for ask in self._asks
                if name == HEALTHY or (name in ask.worlds and _relevant(name, ask.setting) == setting)
            ]
            try:
                for answers in self._played(name, setting, asks):
                    self._keep(asks, answers)
                    if (name, setting) == last:
                        self._told.set()
                        self._whole.wait()  # or nobody needs what takes so long to be put back
            except ImpossibleError as error:
                self._keep(asks, [Answer(name, impossible=_why(name, error))] * len(asks))
            except _TROUBLE as error:
                self._keep(asks, [Answer(name, unseen=_why(name, error))] * len(asks))

    def _keep(self, asks: list[AskProbe], answers: list[Answer]) -> None:
        for ask, answer in zip(asks, answers, strict=True):
            queue, depth = self._scene.queue(ask.setting), ask.setting.depth
            self._found[ask].setdefault(answer.world, replace(answer, queue=queue, depth=depth))

    def _played(self, name: str, setting: Setting, asks: list[AskProbe]) -> Iterator[list[Answer]]:
        """The answers, while their world still is."""
        for _ in range(_TRIES):
            with self._made(name, setting) as still:
                if name == _FILLED:
                    self._prime(setting)
                before = self._traces.before()
                answers = self._call_all(name, asks)
                if still is None or still():
                    yield self._with_left(name, asks, answers, before)
                    return
        raise SandboxError(f"{name}: it did not last until the probes were called")

    @contextmanager
    def _made(self, name: str, setting: Setting) -> Iterator[Callable[[], bool] | None]:
        """The world of this name."""
        world = self._world
        made_by = state(name, setting)
        if made_by is not None:
            with made_by(self._scene, setting) as still:
                yield still
            return
        self._start()
        if name == HEALTHY:
            self._await_heartbeats()
            yield None
            return
        found = fault(name)
        with nullcontext() if HOST in found.needs else world.hold(found):
            yield None

    def _await_heartbeats(self) -> None:
        """Where a probe looks for a heartbeat, a healthy world has one."""
        if not self._world.spec.beat:
            return
        for setting in {ask.setting for ask in self._asks if ask.setting.heartbeat}:
            with suppress(FaultError, SandboxError):  # told where it matters
                self._scene.first(self._scene.heartbeat(setting), setting)

    def _prime(self, setting: Setting) -> None:
        """Have gauges be set, while the queue is full, in the processes in which they are read later."""
        for ask in self._asks:
            if not ask.probe.gauge or _relevant(_FILLED, ask.setting) != setting:
                continue
            for name in ask.worlds:
                if name != _FILLED:
                    caller = self._primed[ask, name] = Caller(self._scene.loaded, ask.probe)
                    if ask.probe.host:
                        caller.see(None, "")
                    caller.call(name, within=ask.within, queue=self._scene.queue(setting))

    def _drop_primed(self) -> None:
        while self._primed:
            self._primed.popitem()[1].close()

    # Calls.

    def _call_all(self, name: str, asks: list[AskProbe], *, once: bool = False) -> list[Answer]:
        environ = self._world.environ
        own: AbstractContextManager[Sessions | None] = nullcontext(None)
        if environ["CELERY_BROKER_URL"] != self._url:
            own = self._load(environ)
        with own as other, ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(lambda ask: self._call(name, ask, other or self._scene.loaded, once), asks))

    def _call(self, name: str, ask: AskProbe, loaded: Sessions, once: bool) -> Answer:
        probe = ask.probe
        try:
            of_host = _is_of_host(name)
            if of_host and (probe.command or not probe.host):
                raise FaultError(f"{name} is for a call, wsgi or asgi with a host")
            if probe.command:
                app = self._world.app
                assert app is not None
                seal, environ = self._world.seal, self._world.environ
                return run_command(app, probe.command, name, within=ask.within, sealed=seal, environ=environ)
            caller = self._primed.pop((ask, name), None) or Caller(loaded, probe)
            with caller:
                if probe.host or self._scene.clock is not None:
                    caller.see(self._scene.clock, name if of_host else "")
                answer, seen = caller.call(name, within=ask.within, queue=self._scene.queue(ask.setting))
                if once or not seen:
                    return answer
                if name == HEALTHY:
                    self._usually[ask] = _left(seen)
                    return self._again(answer, seen, caller, ask)
                return self._with_leaks(answer, seen, caller, ask)
        except _TROUBLE as error:
            return Answer(name, unseen=_why(name, error))

    def _again(self, answer: Answer, seen: dict[str, Any], caller: Caller, ask: AskProbe) -> Answer:
        """Call it again in the same process: it is to say the same, what grows with each call is never given
        back, and only now is nothing imported any more."""
        if answer.verdict not in ("healthy", "unhealthy") or answer.took > min(_SLOW, ask.within):
            return answer
        return self._repeated(answer, seen, caller, ask)

    def _with_leaks(self, answer: Answer, seen: dict[str, Any], caller: Caller, ask: AskProbe) -> Answer:
        """Where a call has left a thread or a connection, call it again: only what grows with each call is
        never given back."""
        # Where the broker is well, what is kept for the next call is as much as ever.
        usual = {} if _is_of_broker(answer.world) else self._usually.get(ask, {})
        if answer.took > ask.within or not _growing([usual, _left(seen)]):
            return answer
        return self._repeated(answer, seen, caller, ask)

    def _repeated(self, answer: Answer, seen: dict[str, Any], caller: Caller, ask: AskProbe) -> Answer:
        """The answer, with what grows with each of up to two calls more; in a healthy world, one that
        differs, and what the cheapest call costs."""
        counts: list[Mapping[str, Any]] = [seen]
        for _ in range(2):
            later, seen = caller.call(answer.world, within=ask.within, queue=self._scene.queue(ask.setting))
            if not seen:
                return later
            if answer.world == HEALTHY:
                if (later.verdict, later.json) != (answer.verdict, answer.json):
                    return replace(later, said=f"{later.said} (called again)")
                answer = replace(answer, cpu=min(filter(None, (answer.cpu, later.cpu)), default=None))
            counts.append(_settled(caller, counts[-1]))
            if not _growing(counts):
                return answer
        return replace(answer, left=_told(counts))

    def _with_left(
        self, name: str, asks: list[AskProbe], answers: list[Answer], before: frozenset[Trace]
    ) -> list[Answer]:
        """`answers` with what the calls left in the broker."""
        if name in ("broker_restarts_empty", "broker_fails_over"):
            return answers
        new = new_since(before, self._traces, name)
        if not new:
            return answers
        self._traces.remove(new)
        # What a killed process would have taken away itself is not counted.
        ended = [ask for ask, answer in zip(asks, answers, strict=True) if answer.verdict != "hung"]
        left = self._leavers(name, ended, before)
        return [
            replace(answer, left=(*answer.left, *map(str, left.get(ask, ()))))
            for ask, answer in zip(asks, answers, strict=True)
        ]

    def _leavers(
        self, name: str, asks: list[AskProbe], before: frozenset[Trace]
    ) -> dict[AskProbe, list[Trace]]:
        """What each of these leaves, found by calling them again, half of them at a time."""
        if not asks:
            return {}
        self._call_all(name, asks, once=True)
        new = new_since(before, self._traces, name)
        self._traces.remove(new)
        if not new or len(asks) == 1:
            return {asks[0]: new} if new else {}
        half = len(asks) // 2
        return self._leavers(name, asks[:half], before) | self._leavers(name, asks[half:], before)

    def _load(self, environ: Any) -> Sessions:
        assert self._world.app is not None
        return Sessions(self._world.app, WORK, timeout=_LOAD, sealed=self._world.seal, environ=environ)


_KINDS = {"threads": "thread", "sockets": "connection"}


def _left(seen: Mapping[str, Any]) -> Mapping[str, int]:
    """What a call left."""
    return {what: seen[what] - seen["before"][what] for what in _KINDS}


def _grows(counts: Sequence[Mapping[str, int]], what: str) -> bool:
    """Whether each call leaves more."""
    return all(later[what] > earlier.get(what, 0) for earlier, later in pairwise(counts))


def _growing(counts: Sequence[Mapping[str, int]]) -> bool:
    return any(_grows(counts, what) for what in _KINDS)


def _told(counts: Sequence[Mapping[str, int]]) -> tuple[str, ...]:
    return tuple(f"a {word} with each call" for what, word in _KINDS.items() if _grows(counts, what))


def _settled(caller: Caller, before: Mapping[str, int]) -> Mapping[str, int]:
    """What there is once no more is left than before, or what is left does not end soon."""
    over = monotonic() + _ENDS_SOON
    while _growing([before, now := caller.left()]) and monotonic() < over:
        time.sleep(_TICK)
    return now


def _why(name: str, error: BaseException) -> str:
    """What is said of a world; its name is told beside it."""
    return mask(str(error)).partition("\n")[0].removeprefix(f"{name}: ")


def _is_of_host(name: str) -> bool:
    return name != HEALTHY and state(name, Setting()) is None and HOST in fault(name).needs


def _is_of_broker(name: str) -> bool:
    return state(name, Setting()) is None and bool({BROKER, BACKEND} & set(fault(name).takes))


def _relevant(name: str, setting: Setting) -> Setting:
    """What of the setting makes a difference to this world."""
    if name.startswith("queue_"):
        return Setting(queue=setting.queue, depth=setting.depth)
    if name.startswith("task_"):
        return Setting(stuck_after=setting.stuck_after)
    if name in HEARTBEATS:
        return Setting(heartbeat=setting.heartbeat, url=setting.url, fresh_for=setting.fresh_for)
    return Setting()
