"""A sandbox with proxies in front of its broker and result backend, in which faults are held.

The proxies are for the code under test only: workers and beat connect directly, so that a fault of the way to
the broker is one for whoever uses `url`, `result` or `environ`, and for nobody else.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_celery_health.observe.clock import monotonic
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox, SandboxError
from pytest_celery_health.sandbox.brokers import choose
from pytest_celery_health.sandbox.client import KeeperGoneError
from pytest_celery_health.sandbox.faults import Fault, FaultError, known
from pytest_celery_health.sandbox.faults.base import (
    BACKEND,
    BEAT,
    BROKER,
    HOST,
    PASSWORD,
    PREFORK,
    WHOLE_WORKER,
    WORKERS,
    ImpossibleError,
)
from pytest_celery_health.sandbox.members import Members
from pytest_celery_health.sandbox.proxy import Proxy, ProxyError
from pytest_celery_health.sandbox.seal import Seal
from pytest_celery_health.sandbox.spec import SandboxSpec

#: Seconds in which a world must be seen to be whole again after a fault.
WHOLE_WITHIN = 15.0
_TICK = 0.005
_RIG = "pytest_celery_health.sandbox.faults.rig:rig"
#: Variables that may hold a failover list, where others hold one URL.
_LISTS = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


class Held:
    """A fault that is held, since the moment `since` of the monotonic clock."""

    def __init__(self, world: World, fault: Fault, arguments: Mapping[str, Any], subjects: set[str]) -> None:
        self.fault = fault
        self.arguments = arguments
        self.subjects = subjects
        self.since = monotonic()
        self._world = world
        self._stack = ExitStack()
        self._over = False

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.fault}({said})" if said else self.fault.name

    def __repr__(self) -> str:
        return f"<held: {self}>"

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over

    def end(self, *, cut: bool = False) -> None:
        """End it now, if it has not, also from another thread. When this returns, the world is whole.

        cut: reset every connection of the code under test then, so that who waits on one gets an error.

        Raises SandboxError when the world is not whole and no new one could be started in its place.
        """
        with self._world._lock:
            if self._over:
                return
            self._over = True
            self._world._let_go(self, self._stack, cut)


class World:
    """What a fault is held in. Nothing is started before it is needed; close() ends everything.

    spec: of the sandbox. app: what its workers and beat load; without it there are none, and faults that need
    them are refused. whole_within: seconds in which it must be seen to be whole after a fault, else it is
    replaced.

        with World(spec, app) as world:
            world.start(WORKERS)                   # else the first fault that needs them does
            healthy = probe(world.environ)         # a child process; or pointed(app, world.url, world.result)
            with world.hold("broker_hangs_after", replied=5):
                assert not probe(world.environ)

    `url`, `result` and `environ` stay the same from the first use until close(), also when a world that a
    fault left broken was replaced; except within `broker_fails_over`, where `url` and `environ` have a list.
    Not for several threads at once, except Held.end().
    """

    def __init__(
        self, spec: SandboxSpec, app: AppSpec | None = None, *, whole_within: float = WHOLE_WITHIN
    ) -> None:
        self.app = app
        self.whole_within = whole_within
        #: What a reader should know: why a world was replaced.
        self.notes: list[str] = []
        #: Entered whenever `url` is another for a while, for who has pointed an app at it.
        self.follow: Callable[[], AbstractContextManager[object]] = nullcontext
        #: Of a fault that has the broker take nothing more: whether it shall, now.
        self.fill: Callable[[bool], None] | None = None
        self.spec = spec
        self._lock = threading.RLock()
        self._password = secrets.token_hex(16)
        self._sandbox: Sandbox | None = None
        self._second: World | None = None
        self._proxies: dict[str, Proxy] = {}
        self._address = ""
        self._held: list[Held] = []
        self._closed = False
        #: Its workers and its beat, for faults.
        self.members = Members(self)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        held = ", ".join(map(str, self._held))
        return f"<World {self._sandbox or 'not started'}{f': {held}' if held else ''}>"

    # For the code under test.

    @property
    def url(self) -> str:
        """Of the broker, through its proxy. Starts the broker."""
        return self._address or self._through(BROKER, self.sandbox.launch.url)

    @property
    def result(self) -> str:
        """Of the result backend, through its proxy, or "rpc://". Starts the broker."""
        result = self.sandbox.launch.result
        return self._through(BACKEND, result) if self._has_backend else result

    @property
    def options(self) -> Mapping[str, Any]:
        """Transport options that clients of this broker do better with."""
        return self.sandbox.launch.options

    @property
    def environ(self) -> Mapping[str, str]:
        """The whole environment of a child process under test: sealed, and pointed at the proxies."""
        sandbox = self.sandbox
        assert sandbox.seal is not None
        first = self._through(BROKER, sandbox.launch.url)
        environ = {
            name: first if value == sandbox.launch.url else value for name, value in sandbox.environ.items()
        }
        environ |= dict.fromkeys(_LISTS, self.url)
        if "CELERY_RESULT_BACKEND" in environ:
            environ["CELERY_RESULT_BACKEND"] = self.result
        return self.seal.environ(environ, role="probe")

    @property
    def seal(self) -> Seal:
        """What a child process under test may reach: what the sandbox's may, and the proxies."""
        own = self.sandbox.seal
        assert own is not None
        proxies = [*self._proxies.values()]
        if self._second is not None:
            proxies += self._second._proxies.values()
        return replace(own, allow=(*own.allow, *(proxy.endpoint for proxy in proxies)))

    # What it consists of.

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox, with its broker and the proxies; started if need be. Raises SandboxError."""
        if self._sandbox is None:
            if self._closed:
                raise SandboxError("this world is closed")
            app = self.app or AppSpec("", Path.cwd())
            spec = replace(self.spec, workers=0, beat=())
            sandbox = Sandbox(spec, app, rigged=_RIG, password=self._password)
            sandbox.start(described=False)
            self._sandbox = sandbox
            if sandbox.launch.argv:
                for side in (BROKER, BACKEND) if self._has_backend else (BROKER,):
                    upstream = _place(sandbox.launch.url)
                    if side in self._proxies:
                        self._proxies[side].lead_to(upstream)
                    else:
                        self._proxies[side] = Proxy(upstream, name=f"{side} proxy")
        return self._sandbox

    @property
    def password(self) -> str:
        """Of the broker and the result backend; "" if it asks for none."""
        return urlsplit(self.sandbox.launch.url).password or ""

    @property
    def _has_backend(self) -> bool:
        return self._sandbox is not None and self._sandbox.launch.result.startswith("redis")

    @property
    def started(self) -> bool:
        """Whether it has a sandbox now."""
        return self._sandbox is not None

    def proxy(self, side: str) -> Proxy:
        """The proxy in front of BROKER or BACKEND."""
        assert self.sandbox
        return self._proxies[side]

    def _through(self, side: str, url: str) -> str:
        return url.replace(_place(url), self._proxies[side].endpoint) if side in self._proxies else url

    def start(self, *needs: str) -> None:
        """Have what a fault may need, WORKERS or BEAT, running and whole.

        Raises FaultError when that is not possible, SandboxError when it does not start.
        """
        with self._lock:
            self._require("this world", needs)

    def close(self) -> None:
        """End everything. What is held is not put back, but goes with the world, which is over then."""
        with self._lock:
            self._closed = True
            self._end_sandbox()
            for held in reversed(self._held[:]):
                with suppress(SandboxError):
                    held.end()
            second, self._second = self._second, None
            if second is not None:
                second.close()
            proxies, self._proxies = self._proxies, {}
            for proxy in proxies.values():
                proxy.close()

    def _end_sandbox(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    # Faults.

    @contextmanager
    def hold(self, fault: str | Fault, /, *args: Any, **named: Any) -> Iterator[Held]:
        """Hold a fault; then put everything back, and see that it is.

        Raises FaultError when the fault is not possible: in this world, with these arguments, or beside one
        that is held; SandboxError when what it needs does not start.
        """
        held = self.enter(fault, *args, **named)
        try:
            yield held
        finally:
            held.end()

    def enter(self, fault: str | Fault, /, *args: Any, **named: Any) -> Held:
        """`hold`, for who ends it himself."""
        __tracebackhide__ = True
        with self._lock:
            fault = known(fault)
            arguments = _bound(fault, args, named)
            self._require(fault.name, fault.needs)
            held = Held(self, fault, arguments, self._subjects(fault, arguments))
            self._refuse_beside(held)
            try:
                with self._taking(fault.needs):
                    held._stack.enter_context(fault.act(self, **arguments))
            except FaultError:
                raise
            except (SandboxError, KeeperGoneError, ProxyError, OSError) as error:
                self._replace(f"{held} did not come about: {error}")
                raise SandboxError(f"{held} did not come about: {error}") from error
            held.since = monotonic()
            self._held.append(held)
            return held

    def _let_go(self, held: Held, stack: ExitStack, cut: bool) -> None:
        try:
            with self._taking(held.fault.needs):
                stack.close()
            if cut:
                self.cut()
        except (FaultError, SandboxError, KeeperGoneError, ProxyError, OSError) as error:
            self._replace(f"after {held}: {error}")
        finally:
            self._held.remove(held)

    @contextmanager
    def _taking(self, needs: Sequence[str]) -> Iterator[None]:
        """Have a broker that is to be full take what we do to workers and beat, if that is needed.

        What ended of it meanwhile is there again.
        """
        fill = self.fill
        if fill is None or not {WORKERS, BEAT} & set(needs):
            yield
            return
        self.fill = None
        fill(False)
        try:
            self.members.revive()
            yield
        finally:
            self.fill = fill
            fill(True)

    @property
    def subjects(self) -> set[str]:
        """What faults have spoiled now."""
        return {each for held in self._held for each in held.subjects}

    def cut(self) -> None:
        """Reset every connection of the code under test to the broker and the result backend."""
        for proxy in self._proxies.values():
            proxy.cut()

    def _replace(self, why: str) -> None:
        """Throw the world away, and start another in its place, behind the same proxies."""
        if self._closed:
            return
        self.notes.append(f"the world was replaced: {why}")
        with suppress(SandboxError, KeeperGoneError, TimeoutError):
            self._end_sandbox()
        self._sandbox = None
        assert self.sandbox
        if self.members.started:
            self.members.start()
        if self.members.beating:
            self.members.start_beat()
        if self.fill is not None:
            self.fill(True)

    def _require(self, who: str, needs: Sequence[str]) -> None:
        __tracebackhide__ = True
        if set(needs) <= {HOST}:
            return
        if not self.sandbox.launch.argv:
            raise ImpossibleError(
                f"{who}: {self.sandbox.broker} is no server that could fail, nor can a worker or beat"
                " reach it; name another broker in [tool.celery-health.sandbox]"
            )
        if BACKEND in needs and not self._has_backend:
            broker = who.replace(BACKEND, BROKER)
            raise ImpossibleError(f"{who}: results go through the broker here (rpc://), so hold {broker}")
        if PASSWORD in needs and not self.password:
            raise ImpossibleError(f"{who}: {self.sandbox.broker} asks for no password")
        if {WORKERS, BEAT} & set(needs):
            if self.app is None:
                raise FaultError(
                    f'{who}: no app to start workers of; set app = "..." in [tool.celery-health]'
                )
            if BEAT in needs and not self.spec.beat:
                raise FaultError(
                    f"{who}: no beat to start; name what it shall send, such as"
                    f' beat = ["heartbeat"] in [tool.celery-health.sandbox]'
                )
        if WORKERS in needs and not self.members.started:
            with self._taking(needs):
                self.members.start()
        if BEAT in needs and not self.members.beating:
            with self._taking(needs):
                self.members.start_beat()
        if PREFORK in needs and any(each.kind != "prefork" for each in self.members.all.values()):
            raise FaultError(f"{who}: the pool of the workers here has no processes; it needs prefork")

    def _subjects(self, fault: Fault, arguments: Mapping[str, Any]) -> set[str]:
        worker = arguments.get("worker", "")
        if worker and worker not in self.members.all:
            raise FaultError(f"{fault}: no worker {worker!r}; there are {', '.join(self.members.all)}")
        found: set[str] = set()
        for each in fault.takes:
            if each == HOST:
                found.add(f"{HOST} {arguments['host']}")
            elif each in WHOLE_WORKER:
                found |= {f"{each} of {name}" for name in self.members.names(worker)}
            else:
                found.add(each)
        return found

    def _refuse_beside(self, held: Held) -> None:
        __tracebackhide__ = True
        for other in self._held:
            if other.subjects & held.subjects:
                raise FaultError(f"{held} cannot be held beside {other}: end that first")

    # What faults do.

    def prove_way(self, side: str) -> None:
        """Until the broker, or the backend, answers through its proxy. Raises SandboxError."""
        _, broker = choose(self.spec.broker)
        url = self.sandbox.launch.url
        launch = replace(self.sandbox.launch, url=url.replace(_place(url), self.proxy(side).endpoint))
        self.wait(lambda: broker.answers(launch), f"the {side} does not answer")

    def wait(self, holds: Callable[[], object], what: str, within: float | None = None) -> None:
        """Until something holds. Raises SandboxError, which begins with `what`, when it is late."""
        within = self.whole_within if within is None else within
        over = monotonic() + within
        while not holds():
            if monotonic() > over:
                raise SandboxError(f"{what} within {within:g} s")
            time.sleep(_TICK)

    def restart_broker(self) -> None:
        """Have the broker end at once, and come back without what it held."""
        self.sandbox.stop_broker()
        self.sandbox.restart_broker()

    def purge(self, queues: Sequence[str]) -> None:
        """Drop what waits in these queues, unless there are workers: they have had it."""
        if self._sandbox is not None and not self.members.started:
            self.members.purge(queues)

    def second_broker(self) -> str:
        """The URL of another broker, with workers if this one has; both are kept until close()."""
        if self._second is None:
            self._second = World(self.spec, self.app, whole_within=self.whole_within)
        if self.members.started:
            self._second.start(WORKERS)
        return self._second.url

    @contextmanager
    def addressed(self, url: str) -> Iterator[None]:
        """Have the code under test use another URL of the broker."""
        before, self._address = self._address, url
        try:
            with self.follow():
                yield
        finally:
            self._address = before


def _place(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _bound(fault: Fault, args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name. Raises FaultError for what the fault does not take."""
    parameters = [*signature(fault.act).parameters][1:]
    try:
        bound = signature(fault.act).bind(None, *args, **named)
    except TypeError as error:
        takes = f"it takes {', '.join(parameters)}" if parameters else "it takes no arguments"
        raise FaultError(f"{fault}: {error}; {takes}") from None
    return {name: bound.arguments[name] for name in parameters if name in bound.arguments}
