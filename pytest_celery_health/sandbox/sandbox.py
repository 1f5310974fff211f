"""A sandbox: what is started, how it is joined by other processes, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from pytest_celery_health.masking import mask
from pytest_celery_health.observe.target import Target
from pytest_celery_health.project import values
from pytest_celery_health.project.describe import child_environ, describe
from pytest_celery_health.project.info import AppInfo, AppSpec, ProjectError, info_in
from pytest_celery_health.sandbox import brokers
from pytest_celery_health.sandbox.brokers import Broker, Launch
from pytest_celery_health.sandbox.children.child import INFO, UP
from pytest_celery_health.sandbox.client import Client, KeeperGoneError
from pytest_celery_health.sandbox.errors import SandboxError
from pytest_celery_health.sandbox.reports import LOG_LINES, TICK, Reports, ending, title
from pytest_celery_health.sandbox.seal import Refusal, Seal, clean_environ, refusals
from pytest_celery_health.sandbox.spec import SandboxSpec

#: Seconds that a named entry of the schedule gets for its first run before start() goes on without it.
FIRST_RUN = 5.0
#: How often a broker is started again because another process took its port.
_PORT_TRIES = 5


class Sandbox:
    """A broker, workers and a beat of one app, for as long as somebody needs them.

    Use it as a context manager, or call start() and close(). Not for several threads at once. Where `app`
    names none, and there is neither worker nor beat, it is a broker alone.

    rigged: "module:function" that rigs each worker before it starts, see `drills.rig`.
    password: of the broker; a random one of 32 characters where none is given.
    ports: on which the servers of rigged workers listen, by the ports that they name.
    """

    def __init__(
        self,
        spec: SandboxSpec,
        app: AppSpec,
        *,
        rigged: str = "",
        password: str = "",
        ports: Mapping[int, int] | None = None,
    ) -> None:
        self.spec = spec
        self.app = app
        self.rigged = rigged
        self.ports = dict(ports or {})
        #: Name and version of the broker: "valkey 9.1.2".
        self.broker = ""
        #: The whole environment of children that shall see the same world, sealed.
        self.environ: Mapping[str, str] = {}
        self.seal: Seal | None = None
        self._client: Client | None = None
        self._reports: Reports | None = None
        self._target: Target | None = None
        self._password = password
        self._random = not password
        self._describing = False
        self._notes: list[str] = []
        self._refused: list[Refusal] = []
        self._launch: Launch | None = None

    def __enter__(self) -> Sandbox:
        if self._client is None:  # else it was attached
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sandbox {self.broker or 'not started'}>"

    @property
    def target(self) -> Target:
        """What to look at. Raises SandboxError before start() and after close()."""
        if self._target is None:
            raise SandboxError("the sandbox is not running")
        return self._target

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the verdicts should know: an entry of the schedule whose first run was not seen or
        failed, a process that ended since the start."""
        if self._client is not None:
            with contextlib.suppress(KeeperGoneError):
                for event in self.reports.new():
                    if event["what"] == "exit":
                        how = f"ended with {ending(event['code'])} after the sandbox had started"
                        self._notes.append(f"{title(event['name'])} {how}")
        return tuple(self._notes)

    def start(self, *, described: bool = True) -> None:
        """Start everything.

        Return when the broker and all workers answer, and beat has sent each of its entries. Their first
        runs are waited for too, but not for long: see `notes`. If it need not be `described`, the app is not
        asked what it is before a worker is started, and `target.app` is None until that answers.

        Raises SandboxError, at once when a child ends, else after `spec.start_within` seconds. Nothing is
        left then.
        """
        if self._client is not None:
            raise SandboxError("the sandbox is running already")
        try:
            name, broker = brokers.choose(self.spec.broker)
        except brokers.UnavailableError as error:
            raise SandboxError(str(error)) from None
        if broker.LOCAL and (self.spec.workers or self.spec.beat):
            raise SandboxError(
                f"{broker.LOCAL} lives in one process, so no worker or beat of the sandbox can reach it; "
                f"leave `broker` out, or set workers = 0 and no beat"
            )
        over = time.monotonic() + self.spec.start_within
        try:
            self._client = Client.start()
            self._reports = Reports(self._client, self.spec.start_within)
            launch = self._start_all(name, broker, over)
            self._await_all(over)
            if self._children() or (described and self.app.said_by):
                self._target = self._describe(launch, over)
            else:
                self._target = self._make_target(None, launch.url, launch.options)
        except BaseException as error:
            with contextlib.suppress(TimeoutError):
                self.close()
            if isinstance(error, KeeperGoneError):
                raise SandboxError(str(error)) from error
            raise

    def close(self) -> None:
        """Leave; the last to leave ends everything and removes the files. Does nothing if that is done.

        Raises TimeoutError when a process cannot be ended, not even by SIGKILL.
        """
        if self._client is not None:
            self._refused = self.refusals()
        client, self._client, self._reports, self._target = self._client, None, None, None
        if client is not None:
            client.leave()

    def share(self, path: Path) -> None:
        """Write a file by which other processes of this user can `attach`. It goes with the sandbox."""
        client = self._running()
        part = path.with_name(f"{path.name}.{os.getpid()}")
        brokers.write_private(part, json.dumps({"keeper": client.address}))
        part.rename(path)
        client.ask("remove", path=str(path.absolute()), holds=client.address)

    @classmethod
    def attach(cls, path: Path) -> Sandbox:
        """The sandbox that another process shared at `path`; it lives until the last of us has closed it.

        Raises SandboxError when there is none, or it has gone.
        """
        try:
            client = Client.join(json.loads(path.read_text(encoding="utf-8"))["keeper"])
        except (OSError, ValueError, KeyError, KeeperGoneError) as error:
            raise SandboxError(f"no sandbox is shared at {path.name}: {error}") from None
        try:
            return cls._joined(client)
        except BaseException:
            client.leave()
            raise

    def logs(self, lines: int = LOG_LINES) -> dict[str, str]:
        """The last lines of every child's output, by the child's name. Passwords are masked."""
        client = self._running()
        return {path.stem: self.log(path.stem, lines) for path in sorted(client.folder.glob("*.log"))}

    def refusals(self) -> list[Refusal]:
        """The connections that were refused to the sandbox's processes so far; after close(), until then."""
        if self._client is None or self.seal is None:
            return self._refused
        return refusals(self.seal.log)

    # While it runs.

    @property
    def launch(self) -> Launch:
        """How the broker was started, and how to reach it. Raises SandboxError before start()."""
        if self._launch is None:
            raise SandboxError("the sandbox is not running")
        return self._launch

    @property
    def reports(self) -> Reports:
        """What its children report. Raises SandboxError before start() and after close()."""
        if self._reports is None:
            raise SandboxError("the sandbox is not running")
        return self._reports

    @property
    def folder(self) -> Path:
        """Where its children's files are. It goes with the sandbox."""
        return self._running().folder

    def add_worker(
        self,
        name: str,
        *,
        pool: str,
        concurrency: int | None,
        queues: tuple[str, ...],
        conf: Mapping[str, Any] | None = None,
    ) -> None:
        """Start one more worker, or again one that has ended. `conf` changes its app's settings, if it is
        rigged. "", None and () stand for what they stand for in the spec."""
        asked = {
            "pool": pool,
            "concurrency": concurrency,
            "queues": queues,
            "describe": self.target.app is None and not self._describing,
        }
        self._describing |= asked["describe"] is True
        self._add(name, "worker", asked, conf)

    def await_worker(self, name: str) -> dict[str, Any]:
        """What the worker told of itself, once it answers. Raises SandboxError when it ends, or is late."""
        told = self._await(name, {"ready"})
        if (name, "described") in told:
            self._describing = False
            info = info_in(values.parse((self.folder / INFO).read_text(encoding="utf-8")))
            self._target = self._make_target(info, self.launch.url, self.launch.options)
        return told.get((name, "rigged"), {})

    def add_beat(self, name: str, entries: Sequence[str]) -> None:
        """Start a beat, one more, or again one that has ended, with these entries of the schedule."""
        self._add(name, "beat", {"entries": entries, "describe": False})

    def await_beat(self, name: str, entries: Sequence[str]) -> None:
        """Until it has sent each entry once. Raises SandboxError when it ends, is late or cannot send one."""
        told = self._await(name, {f"sent {entry}" for entry in entries})
        for entry in entries:
            why = told[name, f"sent {entry}"].get("why")
            if why:
                raise SandboxError(f"beat could not send {entry}: {mask(why)}")

    def _add(
        self, name: str, module: str, asked: Mapping[str, Any], conf: Mapping[str, Any] | None = None
    ) -> None:
        if self._launch is None or self.seal is None:
            raise SandboxError("the sandbox is not running")
        self.reports.forget(name)  # one that was called so
        self._spawn_child(name, module, self._launch, self.seal, asked, conf or {})

    def _await(self, name: str, wanted: set[str]) -> dict[tuple[str, str], dict[str, Any]]:
        over = time.monotonic() + self.spec.start_within
        return self.reports.wait({(name, each) for each in wanted}, over)

    def signal(self, name: str, number: int) -> None:
        """Send a child a signal; nothing if it has ended."""
        self._running().ask("signal", name=name, number=number)

    def processes(self, name: str) -> list[int]:
        """The process of a child and all below it; none if it has ended."""
        found: list[int] = self._running().ask("processes", name=name)["pids"]
        return found

    def exit_code(self, name: str) -> int | None:
        """How a child ended, -9 for SIGKILL; None while it runs."""
        return self.reports.exit_code(name)

    def end_workers(self, *names: str) -> None:
        """End children at once, and all that they started."""
        self._running().ask("kill", names=names)

    def stop_broker(self) -> None:
        """Have the broker end at once, as if its machine had failed."""
        self._running().ask("kill", names=["broker"])
        self.reports.new()  # its end

    def restart_broker(self) -> None:
        """Start the broker again where it was. What it held is lost. Raises SandboxError."""
        launch = self.launch
        name, broker = brokers.choose(self.spec.broker)
        for each in launch.kept:
            shutil.rmtree(each, ignore_errors=True)
        self._spawn_broker(launch)
        if not self._broker_came_up(name, broker, launch, time.monotonic() + self.spec.start_within):
            raise SandboxError(f"{name} found its port taken" + self.reports.because("broker"))

    def log(self, name: str, lines: int = LOG_LINES) -> str:
        """The last lines of a child's output. Passwords are masked."""
        return self.reports.tail(name, lines)

    # The start.

    def _start_all(self, name: str, broker: Broker, over: float) -> Launch:
        """Start the broker and everything else; return once the broker answers."""
        client = self._running()
        for _ in range(_PORT_TRIES):
            if self._random:
                self._password = secrets.token_hex(16)
            self.reports.password = self._password
            launch = broker.launch(client.folder, self._password)
            environ = clean_environ(
                child_environ(self.app),
                broker_url=launch.url,
                backend_url=launch.result,
                redirect_env=self.spec.redirect_env,
                own=self.app.env,
                private=client.folder,
            )
            self.seal = self._make_seal(launch)
            self.environ = self.seal.environ(environ, role="call")
            self._launch = launch
            if launch.argv:
                self._spawn_broker(launch)
            self._spawn_children(launch, self.seal)
            if self._broker_came_up(name, broker, launch, over):
                (client.folder / UP).touch()
                return launch
            client.ask("kill", names=["broker", *self._children()])
            self.reports.forget("broker", *self._children())
        raise SandboxError(
            f"{name} found its port taken {_PORT_TRIES} times" + self.reports.because("broker")
        )

    def _spawn_broker(self, launch: Launch) -> None:
        client = self._running()
        env = {**_minimal_environment(client.folder), **launch.env}
        client.spawn("broker", launch.argv, env, client.folder, broker=True, stop=launch.stop)

    def _broker_came_up(self, name: str, broker: Broker, launch: Launch, over: float) -> bool:
        """False if it lost the race for its port."""
        while True:
            self.broker = broker.answers(launch)
            if self.broker:
                return True
            for event in self.reports.new():
                if event["name"] == "broker" and event["what"] == "exit":
                    if broker.port_was_taken(self.log("broker", 100)):
                        return False
                    ended = f"{name} ended with {ending(event['code'])}" + self.reports.last_word("broker")
                    raise SandboxError(ended + self.reports.because("broker"))
                self.reports.raise_if_over(event)
            if time.monotonic() > over:
                late = f"{name} did not answer within {self.spec.start_within:g} s"
                raise SandboxError(late + self.reports.because("broker"))
            time.sleep(TICK)

    def _children(self) -> list[str]:
        return [*self._worker_names(), *(["beat"] if self.spec.beat else [])]

    def _worker_names(self) -> list[str]:
        return [f"w{number}" for number in range(1, self.spec.workers + 1)]

    def _make_seal(self, launch: Launch) -> Seal:
        own = () if not launch.argv else (urlsplit(launch.url).netloc.rpartition("@")[2],)
        try:
            return Seal((*own, *self.spec.allow), self._running().folder / "refusals")
        except ValueError as error:
            raise SandboxError(f"allow: {error}") from None

    def _spawn_children(self, launch: Launch, seal: Seal) -> None:
        for index, name in enumerate(self._children()):
            asked = {
                "describe": index == 0,
                "queues": self.spec.queues,
                "pool": self.spec.pool,
                "concurrency": self.spec.concurrency,
                "entries": self.spec.beat,
            }
            self._spawn_child(name, "beat" if name == "beat" else "worker", launch, seal, asked)

    def _spawn_child(
        self,
        name: str,
        module: str,
        launch: Launch,
        seal: Seal,
        asked: Mapping[str, Any],
        conf: Mapping[str, Any] | None = None,
    ) -> None:
        client = self._running()
        task = {
            "name": name,
            "node": f"{name}@sandbox",
            "app": self.app.app,
            "hooks": self.app.hooks,
            "target": self.app.target,
            "options": dict(launch.options),
            "start_within": self.spec.start_within,
            "rig": self._rigging(conf or {}) if self.rigged else None,
            **asked,
        }
        file = client.folder / f"{name}.json"
        brokers.write_private(file, json.dumps(task))
        argv = (sys.executable, "-m", f"{__package__}.children.{module}", str(file))
        env = {**seal.environ(self.environ, role=name), "PYTHONUNBUFFERED": "1"}
        client.spawn(name, argv, env, self.app.root, broker=False, stop=signal.SIGTERM)

    def _rigging(self, conf: Mapping[str, Any]) -> dict[str, Any]:
        ports = list(self.ports.items())
        return {"by": self.rigged, "conf": conf, "allow": self.spec.allow, "ports": ports}

    def _await_all(self, over: float) -> None:
        wanted = {(name, "ready") for name in self._worker_names()}
        wanted |= {(name, "described") for name in self._children()[:1]}
        wanted |= {("beat", f"sent {entry}") for entry in self.spec.beat}
        told = self.reports.wait(wanted, over, needs={"broker"})
        sent = {entry: told["beat", f"sent {entry}"] for entry in self.spec.beat}
        unsent = {entry: said["why"] for entry, said in sent.items() if "why" in said}
        notes = [f"beat could not send {entry}: {mask(why)}" for entry, why in unsent.items()]
        if self.spec.workers:
            notes += self._await_first_runs(min(over, time.monotonic() + FIRST_RUN), set(unsent))
        self._notes = notes

    def _await_first_runs(self, over: float, unsent: set[str]) -> Iterator[str]:
        missing = set(self.spec.beat) - unsent
        while True:
            for event in self.reports.new():
                self.reports.raise_if_over(event)
            ends = self.reports.ran()
            if missing <= ends.keys() or time.monotonic() > over:
                break
            time.sleep(TICK)
        for entry in sorted(missing):
            if entry not in ends:
                yield f"no worker of the sandbox had run {entry} within {FIRST_RUN:g} s of beat's sending it"
            elif ends[entry] not in ("SUCCESS", "IGNORED"):
                yield f"{entry} ended in {ends[entry]} when it first ran"

    def _running(self) -> Client:
        if self._client is None:
            raise SandboxError("the sandbox is not running")
        return self._client

    # What others need to know of it.

    def _describe(self, launch: Launch, over: float) -> Target:
        if self._children():
            info = info_in(values.parse((self._running().folder / INFO).read_text(encoding="utf-8")))
        else:
            try:
                left = max(over - time.monotonic(), 0.1)
                info = describe(self._within(), timeout=left, sealed=self.seal, environ=self.environ)
            except ProjectError as error:
                raise SandboxError(str(error)) from None
        self._running().ask(
            "put",
            state={
                "spec": asdict(self.spec),
                "app": {**asdict(self.app), "root": str(self.app.root)},
                "info": values.dump(asdict(info)),
                "broker": self.broker,
                "url": launch.url,
                "options": dict(launch.options),
                "notes": self._notes,
                "seen": self.reports.seen,
                "environ": dict(self.environ),
                "allow": self.seal.allow if self.seal is not None else (),
                "password": self._password,
            },
        )
        return self._make_target(info, launch.url, launch.options)

    def _make_target(self, info: AppInfo | None, url: str, options: Mapping[str, Any]) -> Target:
        if info is None:
            return Target(name="sandbox", url=url, options=options, env=self.environ, sealed=True)
        return Target(
            name="sandbox",
            url=url,
            options={**info.broker_transport_options, **options},
            control_exchange=info.control_exchange,
            event_exchange=info.event_exchange,
            app=info,
            spec=self._within(),
            env=self.environ,
            sealed=True,
        )

    def _within(self) -> AppSpec:
        """How a child loads the app with our environment, over which the contract's must not win."""
        return replace(self.app, env={})

    @classmethod
    def _joined(cls, client: Client) -> Sandbox:
        state = client.ask("get")["state"]
        if state is None:
            raise SandboxError("the sandbox that is shared there has not started yet")
        spec = SandboxSpec(**_tuples(state["spec"]))
        app = AppSpec(**{**_tuples(state["app"]), "root": Path(state["app"]["root"])})
        sandbox = cls(spec, app)
        sandbox.broker, sandbox.environ = state["broker"], state["environ"]
        sandbox._notes = state["notes"]
        sandbox._reports = Reports(client, spec.start_within, seen=state["seen"], password=state["password"])
        sandbox.seal = Seal(tuple(state["allow"]), client.folder / "refusals")
        info = info_in(values.parse(state["info"]))
        sandbox._target = sandbox._make_target(info, state["url"], state["options"])
        sandbox._client = client
        return sandbox


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _minimal_environment(home: Path) -> dict[str, str]:
    """What a broker needs: nothing of ours but where programs are, and a home that goes away."""
    names = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "HOME": str(home), "LANG": "C.UTF-8"}
