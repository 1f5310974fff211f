"""Call a health check of the project in processes of its own, each call with a hard deadline.

Standard library only, as `describe`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pytest_celery_health.facts import Answer, Probe
from pytest_celery_health.masking import mask, secrets_in
from pytest_celery_health.project.describe import Asked, Sealing, child_environ, still_at
from pytest_celery_health.project.info import AppSpec, ProjectError

#: Seconds that the process of a session gets to come, and to do what a world asks of it.
_PATIENCE = 15.0
_LONGEST = 300


def give_up_after(within: float) -> float:
    """Seconds after which a call is killed that should have taken `within`: late is not hung."""
    return within + max(1.0, within / 4)


class Loaded:
    """A process that has loaded the app, and forks a session for whoever asks.

    Nothing is waited for before `told()` or `session()`. For several threads at once.
    """

    def __init__(
        self,
        spec: AppSpec,
        *,
        timeout: float,
        sealed: Sealing,
        environ: Mapping[str, str],
    ) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, Any] = {}
        ours, theirs = socket.socketpair()
        self._control = _Line(ours)
        with theirs:
            self.spec = spec
            job = {"control": theirs.fileno()}
            try:
                self._asked: Asked[None] = Asked(
                    _Loading(), spec, job, timeout, sealed, environ, (theirs.fileno(),)
                )
            except BaseException:
                self._control.close()
                raise

    def told(self) -> dict[str, Any]:
        """What the app says of itself, once it has loaded. Raises ProjectError."""
        with self._lock:
            return self._begun()

    def _begun(self) -> dict[str, Any]:
        if not self._told:
            self._asked.wait_for(self._control.line.fileno())
            try:
                self._told = self._control.hear(_PATIENCE)
            except (OSError, EOFError):  # it has ended, and says why elsewhere
                self._asked.result()
        return self._told

    def session(self, probe: Probe) -> Session:
        """A process in which the health check has not been called yet. Raises ProjectError."""
        asked = {
            "call": probe.call,
            "given": json.loads(probe.given),
            "wsgi": probe.wsgi,
            "asgi": probe.asgi,
            "path_info": probe.path,
            "headers": dict(probe.headers),
            "gauge": probe.gauge,
        }
        with self._lock:
            self._begun()
            ours, theirs = socket.socketpair()
            output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the session
            session = Session(_Line(ours), output, self.spec.root.absolute())
            try:
                with theirs:
                    self._control.say(asked, theirs.fileno(), output.fileno())
                session.begin()
            except (OSError, EOFError) as error:
                session.close()
                raise ProjectError(f"{self.spec.app}: no process for a call: {error}") from error
            except ProjectError as error:
                session.close()
                name = probe.call or probe.wsgi or probe.asgi
                raise ProjectError(f"{name} failed to load: {error}") from None
            return session

    def close(self) -> None:
        """End it, and every session. It may be called twice."""
        self._asked.close()
        self._control.close()


class _Loading:
    word = "probe"
    work = "pytest_celery_health.project.child.probe:serve"

    def read(self, value: Any) -> None:
        """It ends when it is told to, and says nothing then."""


class Session:
    """A process in which the health check is called, as often as asked."""

    def __init__(self, line: _Line, output: IO[bytes], root: Path) -> None:
        self._line = line
        self._output = output
        self._root = root
        self._pid = 0

    def begin(self) -> None:
        """Wait until it is there. Raises ProjectError when the health check does not load."""
        said = self._line.hear(_PATIENCE)
        if "error" in said:
            raise ProjectError(said["error"])
        self._pid = said["pid"]

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, world: str, *, within: float, queue: str) -> tuple[Answer, dict[str, Any]]:
        """The answer, and what else was seen in the process: `threads`, `sockets`.

        A call that is not over long after `within` seconds is killed.
        """
        give_up = give_up_after(within)
        began = time.monotonic()
        try:
            self._line.say({"do": "call", "give_up": give_up, "queue": queue})
            said = self._line.hear(give_up + 1.0)
        except TimeoutError:
            place = still_at(self._written()).removeprefix(f"{self._root}/")
            self.close()
            return Answer(world, "hung", where=place, took=time.monotonic() - began), {}
        except (OSError, EOFError):
            words = self._written().strip().splitlines()[-1:]
            return Answer(world, "crashed", said=mask("".join(words)), took=time.monotonic() - began), {}
        if "gauge" in said:
            said = _by_gauge(said)
        answer = Answer(
            world,
            said["verdict"],
            said.get("kind", ""),
            said["said"],
            said.get("where", ""),
            said["took"],
            said["cpu"],
            tuple(said.get("figures", ())),
            shows=tuple(said["shows"]),
        )
        return answer, said

    def do(self, what: str, **arguments: Any) -> None:
        """Have the app's own means do something to a queue. Raises ProjectError."""
        try:
            self._line.say({"do": what, **arguments})
            said = self._line.hear(_PATIENCE)
        except (OSError, EOFError) as error:
            raise ProjectError(f"{what} failed: {error}") from error
        if "error" in said:
            raise ProjectError(f"{what} failed: {said['error']}")

    def close(self) -> None:
        """End it. It may be called twice."""
        self._line.close()
        self._output.close()
        if self._pid:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signal.SIGKILL)
            self._pid = 0

    def _written(self) -> str:
        """What it wrote."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")


def _by_gauge(said: dict[str, Any]) -> dict[str, Any]:
    """`said`, the verdict that of the gauge: it is believed when it shows a number."""
    shown = said["gauge"]
    if said["verdict"] == "raised" and not any(each is not None for each in shown):
        return {**said, "figures": shown}
    text = ", ".join("NaN" if each is None else f"{each:,.12g}" for each in shown) or "no such gauge"
    number = bool(shown) and all(each is not None for each in shown)
    verdict = "healthy" if number else "unhealthy"
    return {**said, "verdict": verdict, "kind": "gauge", "said": f"shows {text}", "figures": shown}


class _Line:
    """Lines of JSON on a socket."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self._heard = b""

    def say(self, what: dict[str, Any], *descriptors: int) -> None:
        """Send it, with open files."""
        data = json.dumps(what).encode() + b"\n"
        if descriptors:
            data = data[socket.send_fds(self.line, [data], list(descriptors)) :]
        self.line.sendall(data)

    def hear(self, within: float) -> dict[str, Any]:
        """Raises TimeoutError, or EOFError when the other side has gone."""
        over = time.monotonic() + within
        while b"\n" not in self._heard:
            left = over - time.monotonic()
            if left <= 0 or not select.select([self.line], [], [], left)[0]:
                raise TimeoutError
            part = self.line.recv(1 << 16)
            if not part:
                raise EOFError("its process has ended")
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def close(self) -> None:
        self.line.close()


def run_command(
    spec: AppSpec,
    command: tuple[str, ...],
    world: str,
    *,
    within: float,
    sealed: Sealing,
    environ: Mapping[str, str],
) -> Answer:
    """What a command line says by its exit code, as an exec probe is judged.

    `python` is the one that runs us. It is killed, with all that it started, long after `within` seconds.
    """
    env = sealed.environ(child_environ(spec, environ), role="probe")
    env["PATH"] = os.pathsep.join(filter(None, [os.path.dirname(sys.executable), env.get("PATH", "")]))
    secrets = [s for s in secrets_in(*(v for k, v in env.items() if k.startswith("CELERY_"))) if len(s) > 3]
    give_up = give_up_after(within)
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        try:
            child = subprocess.Popen(  # noqa: S603 - the contract's own
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                cwd=spec.root,
                start_new_session=True,
            )
        except OSError as error:
            return Answer(world, unseen=f"{command[0]} cannot be run: {error.strerror or error}")
        code, cpu = _end_of(child, began + give_up)
        took = time.monotonic() - began
        output.seek(0)
        text = output.read().decode(errors="replace")
    said = " ".join(mask(text, secrets).split())[-_LONGEST:]
    shows = ("output",) if any(secret in text for secret in secrets) else ()
    if code is None:
        return Answer(world, "hung", "verdict", said, took=took, shows=shows)
    verdict = "healthy" if code == 0 else "unhealthy"
    if code < 0:
        verdict, said = "crashed", f"ended by {signal.Signals(-code).name}"
    return Answer(world, verdict, "verdict", f"exit {code} {said}".strip(), "", took, cpu, shows=shows)


def _end_of(child: subprocess.Popen[bytes], over: float) -> tuple[int | None, float]:
    """Its exit code, None if it had to be killed; and seconds of processor that it took."""
    pause = 0.002
    try:
        while time.monotonic() < over:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                child.returncode = os.waitstatus_to_exitcode(status)
                return child.returncode, usage.ru_utime + usage.ru_stime
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        return None, 0.0
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        if child.returncode is None:
            child.wait()
