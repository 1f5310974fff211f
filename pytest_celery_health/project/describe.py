"""Ask the user's app in a child process: what it is, what a function of the project says, who listens to its
signals, and how well.

Standard library only: the parent can start a child, go on, and read the answer when it needs it.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Protocol, TypeVar

from pytest_celery_health.durations import spell
from pytest_celery_health.facts import AskTrials, Call, Handler, Handlers, Leak, Trial, Trials
from pytest_celery_health.masking import mask
from pytest_celery_health.project import values
from pytest_celery_health.project.info import AppInfo, AppSpec, ProjectError, info_in

#: Seconds that a child gets to end itself and what it started.
_ENDS_WITHIN = 0.5

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Sealing(Protocol):
    """What seals a child: `pytest_celery_health.sandbox.seal.Seal`."""

    def environ(self, base: Mapping[str, str], *, role: str) -> dict[str, str]:
        """`base` with what a sealed child needs."""
        ...


def describe(
    spec: AppSpec,
    *,
    timeout: float,
    sealed: Sealing | None = None,
    environ: Mapping[str, str] | None = None,
) -> AppInfo:
    """What the app says of itself, within `timeout` seconds. Raises ProjectError."""
    return start_describing(spec, timeout=timeout, sealed=sealed, environ=environ).result()


def call(
    spec: AppSpec,
    function: str,
    *,
    timeout: float,
    sealed: Sealing | None = None,
    environ: Mapping[str, str] | None = None,
) -> Any:
    """What "package.module:function" returns, with the app loaded, within `timeout` seconds.

    Numbers, texts, dates and containers of them come back; a datetime stays naive if it was. Raises
    ProjectError.
    """
    return start_call(spec, function, timeout=timeout, sealed=sealed, environ=environ).result()


def start_describing(
    spec: AppSpec,
    *,
    timeout: float,
    sealed: Sealing | None = None,
    environ: Mapping[str, str] | None = None,
) -> Asked[AppInfo]:
    """`describe`, its child at work while the caller goes on. Its time runs from now."""
    return Asked(_Describing(), spec, {}, timeout, sealed, environ)


def start_call(
    spec: AppSpec,
    function: str,
    *,
    timeout: float,
    sealed: Sealing | None = None,
    environ: Mapping[str, str] | None = None,
) -> Asked[Any]:
    """`call`, its child at work while the caller goes on. Its time runs from now."""
    return Asked(_Calling(), spec, {"function": function}, timeout, sealed, environ)


def start_handlers(
    spec: AppSpec,
    *,
    timeout: float,
    sealed: Sealing,
    environ: Mapping[str, str],
) -> Asked[Handlers]:
    """Who listens to Celery's signals once the app has started as a worker does, short of connecting.

    The worker's first signals are sent, so code of the user's runs that may want to reach others: the child
    is sealed, always. Its time runs from now.
    """
    return Asked(_Listing(), spec, {}, timeout, sealed, environ)


def start_trials(
    spec: AppSpec,
    ask: AskTrials,
    *,
    timeout: float,
    sealed: Sealing,
    environ: Mapping[str, str],
) -> Asked[Trials]:
    """What the app's handlers do with payloads that are hard on them.

    They are really called, in sealed processes, and a tenth of the time is left for what a call that must be
    given up leaves to do. Its time runs from now.
    """
    job = {"names": sorted(ask.names), "within": ask.within, "secrets": sorted(ask.secrets)}
    return Asked(_Trying(), spec, job, timeout, sealed, environ)


def child_environ(spec: AppSpec, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """`base` (default: our own environment) with the spec's variables and import path.

    A sandbox's environment is complete: the spec's variables must not win over it.
    """
    environ = dict(os.environ if base is None else base)
    if environ.get("CELERY_HEALTH_SANDBOX") != "1":
        environ |= spec.env
    ours = str(Path(__file__).resolve().parents[2])
    root = spec.root.absolute()  # the child's working directory is another
    path = [str(root), *(str(root / entry) for entry in spec.path), environ.get("PYTHONPATH", "")]
    if ours not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        path.append(ours)
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    return environ


class _Describing:
    word = work = "describe"

    def read(self, value: Any) -> AppInfo:
        return info_in(value)


class _Calling:
    word = work = "call"

    def read(self, value: Any) -> Any:
        return value


class _Listing:
    word = "handlers"
    work = "pytest_celery_health.project.child.handlers:handlers"

    def read(self, value: Any) -> Handlers:
        seen = tuple(Handler(**{name: _frozen(one) for name, one in said.items()}) for said in value["seen"])
        return Handlers(seen, frozenset(value["modules"]), value["version"])


class _Trying:
    word = "survive"
    work = "pytest_celery_health.record.survive:survive"

    def read(self, value: Any) -> Trials:
        return Trials(tuple(self._trial(**said) for said in value["seen"]), value["tasks"])

    def _trial(self, calls: list[dict[str, Any]], **said: Any) -> Trial:
        return Trial(calls=tuple(self._call(**call) for call in calls), **said)

    def _call(self, leaks: list[dict[str, Any]], **said: Any) -> Call:
        frozen = {name: _frozen(one) for name, one in said.items()}
        return Call(leaks=tuple(Leak(**leak) for leak in leaks), **frozen)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Kind(Protocol[T_co]):
    word: str
    work: str

    def read(self, value: Any) -> T_co: ...


class Asked(Generic[T]):
    """A child at work. `result()` waits for its answer; `close()` gives it up; both end it."""

    def __init__(
        self,
        kind: _Kind[T],
        spec: AppSpec,
        job: dict[str, Any],
        timeout: float,
        sealed: Sealing | None,
        environ: Mapping[str, str] | None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self._kind = kind
        self._subject = job.get("function") or spec.said_by
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._outcome: T | ProjectError | None = None
        env = child_environ(spec, environ)
        path = env["PYTHONPATH"].split(os.pathsep)[: 1 + len(spec.path)]
        if sealed is not None:
            env = sealed.environ(env, role=kind.word)
        self._answer, answer_fd = os.pipe()
        stdin, leash = os.pipe()  # the child ends when our end of it closes, whatever closes it
        self._leash = open(leash, "wb", buffering=0)  # noqa: SIM115  (closed by close())
        job |= {
            "app": spec.app,
            "hooks": spec.hooks,
            "said_by": spec.said_by,
            "target": spec.target,
            "path": path,
            "timeout": timeout,
            "answer_fd": answer_fd,
        }
        self._leash.write(json.dumps(job).encode() + b"\n")
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close())
        try:
            self._child = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "pytest_celery_health.project.child", kind.work],
                stdin=stdin,
                stdout=self._output,
                stderr=self._output,
                env=env,
                cwd=spec.root,
                pass_fds=(answer_fd, *pass_fds),
                start_new_session=True,
            )
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise ProjectError(f"{self._subject} failed to load: {error}") from None
            raise
        finally:
            os.close(answer_fd)
            os.close(stdin)

    def __enter__(self) -> Asked[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def result(self) -> T:
        """The answer. Raises ProjectError when there is none in time, or a failure instead."""
        if self._outcome is None:
            try:
                self._outcome = self._wait()
            except ProjectError as error:
                self._outcome = error
            finally:
                self.close()
        if isinstance(self._outcome, ProjectError):
            raise self._outcome
        return self._outcome

    def close(self) -> None:
        """End the child and all that it started. It may be called twice."""
        if self._output.closed:
            return
        self._leash.close()
        # On which it ends its daemons, and itself; one that hangs in C does not. It is not reaped before its
        # group is killed: the group's number may be another's afterwards.
        hangs_up = select.poll()
        hangs_up.register(self._answer, 0)
        hangs_up.poll(_ENDS_WITHIN * 1000)
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS: PermissionError for a group of zombies
            self._child.kill()
        self._child.wait()
        self._release()

    def _release(self) -> None:
        self._leash.close()
        os.close(self._answer)
        self._output.close()

    def _wait(self) -> T:
        head = self._read(8)
        data = self._read(int.from_bytes(head, "big"))
        answer = values.parse(data.decode())
        if "error" in answer:
            raise ProjectError(mask(answer["error"]))
        return self._kind.read(answer["value"])

    def _read(self, size: int) -> bytes:
        waiting = select.poll()
        waiting.register(self._answer, select.POLLIN)
        data = b""
        while len(data) < size:
            left = self._deadline - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1000):
                raise ProjectError(self._too_late())
            chunk = os.read(self._answer, size - len(data))
            if not chunk:
                raise ProjectError(self._ended())
            data += chunk
        return data

    def wait_for(self, descriptor: int) -> None:
        """Until it can be read, by the child's doing. Raises ProjectError when the child fails first."""
        waiting = select.poll()
        for each in (descriptor, self._answer):
            waiting.register(each, select.POLLIN)
        ready = waiting.poll(max(self._deadline - time.monotonic(), 0) * 1000)
        if all(each != descriptor for each, _ in ready):
            self.result()
            raise ProjectError(f"{self._subject} ended")

    def _too_late(self) -> str:
        doing = "answer" if self._kind.word == "call" else "load"
        at = still_at(self._last_words(65536))
        place = f"; it was at {at}" if at else ""
        return f"{self._subject} did not {doing} within {spell(self._timeout)}{place}"

    def _ended(self) -> str:
        try:
            code = self._child.wait(max(self._deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return f"{self._subject} failed to load: it closed its pipe"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        words = self._last_words(2048).strip().splitlines()[-3:]
        last = f": {words[-1].strip()}" if words else ""
        did = "ended its process, which" if self._kind.word == "call" else "failed to load: its process"
        return mask("\n  ".join([f"{self._subject} {did} {how}{last}", *words[:-1]]))

    def _last_words(self, size: int) -> str:
        end = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, end - size))
        return self._output.read().decode(errors="replace")


_DUMP = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+)(?: in (?P<name>.+))?$', re.MULTILINE)


def still_at(output: str) -> str:
    """Where faulthandler saw the child, the innermost frame of the user's own: "file:line in name", or ""."""
    frames = _last_frames(output)
    if not frames:
        return ""
    library = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]), "<")
    own = next(
        (f for f in frames if not f["file"].startswith(library) and "site-packages" not in f["file"]),
        frames[0],
    )
    return f"{own['file']}:{own['line']} in {own['name']}"


def still_in(output: str, code: str) -> bool:
    """Whether the child was seen in a file whose path has this part."""
    return any(code in frame["file"] for frame in _last_frames(output))


def _last_frames(output: str) -> list[dict[str, str]]:
    _, found, dump = output.rpartition("Timeout (")
    # The main thread is dumped last.
    return [match.groupdict() for match in _DUMP.finditer(dump.rpartition("hread 0x")[2])] if found else []
