"""An app that is loaded once, in a sealed child process, and asked in as many forks of it as are wanted.

A session is a process in which the app is loaded and nothing of it has been called. What is asked of it may
hang: it is given up, and where it was is told. Standard library only.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_celery_health.masking import mask
from pytest_celery_health.project.describe import Asked, Sealing, still_at
from pytest_celery_health.project.info import AppSpec, ProjectError

#: Seconds that what a session needs gets to load, and its fork to come.
_OPENED_WITHIN = 30.0


class Sessions(Asked[Mapping[str, Any]]):
    """The process that has loaded the app. `close()` ends it and its forks.

    work: "module:function" of ours that loads the app and calls `project.child.sessions.serve`. Its time runs
    from now.

        with Sessions(spec, WORK, ...) as sessions:
            with sessions.open(function="shop.orders:place", then="") as session:
                said = session.ask("function", within=3, gives_up=2.9)  # None: it is still at it
    """

    def __init__(
        self,
        spec: AppSpec,
        work: str,
        *,
        timeout: float,
        sealed: Sealing,
        environ: Mapping[str, str],
    ) -> None:
        self._root = str(spec.root.absolute())
        self._folder = tempfile.mkdtemp(prefix="celery-health-")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._line: socket.socket | None = None
        self._said: Mapping[str, Any] = {}
        self._opened: list[Session] = []
        try:
            path = os.path.join(self._folder, "line")
            self._listener.bind(path)
            self._listener.listen()
            super().__init__(_Serving(work), spec, {"socket": path}, timeout, sealed, environ)
        except BaseException:
            self._remove()
            raise

    def __enter__(self) -> Sessions:
        return self

    def result(self) -> Mapping[str, Any]:
        """What the process told of what it has loaded, once it has. Raises ProjectError."""
        if self._line is None:
            self._line = self._accept(self._deadline)
            self._said = _heard(self._line, self._deadline) or {}
        return self._said

    def open(self, **what: Any) -> Session:
        """A new session, for what the work is told. Raises ProjectError when that does not load."""
        self.result()
        assert self._line is not None
        output = Path(self._folder, f"{len(self._opened)}.log")
        over = time.monotonic() + _OPENED_WITHIN
        self._line.sendall(json.dumps({"output": str(output), "what": what}).encode() + b"\n")
        line = self._accept(over)
        said = _heard(line, over) or {"error": "its process ended, or is late"}
        if "error" in said:
            line.close()
            raise ProjectError(mask(said["error"]))
        session = Session(line, output, self._root, said["pid"])
        self._opened.append(session)
        return session

    def close(self) -> None:
        """End the process, and every session. It may be called twice."""
        for session in self._opened:
            session.close()
        super().close()
        self._remove()

    def _accept(self, over: float) -> socket.socket:
        waiting = select.poll()
        waiting.register(self._listener, select.POLLIN)
        waiting.register(self._answer, select.POLLIN)
        ready = dict(waiting.poll(max(over - time.monotonic(), 0) * 1000))
        if self._listener.fileno() in ready:
            return self._listener.accept()[0]
        if ready:
            self._wait()
        raise ProjectError(self._too_late())

    def _remove(self) -> None:
        self._listener.close()
        if self._line is not None:
            self._line.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Session:
    """One fork. It does one thing at a time."""

    def __init__(self, line: socket.socket, output: Path, root: str, pid: int) -> None:
        self.pid = pid
        self._line = line
        self._output = output
        self._root = root
        self._over = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, *, within: float, **what: Any) -> Mapping[str, Any] | None:
        """What it answers; None if it has not within so many seconds. Raises ProjectError if it ended."""
        self.begin(do, **what)
        return self.answer(within)

    def begin(self, do: str, **what: Any) -> None:
        """`ask`, for who fetches the answer later. Raises ProjectError if it has ended."""
        try:
            self._line.sendall(json.dumps({"do": do, **what}).encode() + b"\n")
        except OSError:
            raise ProjectError(self._ended()) from None

    def answer(self, within: float) -> Mapping[str, Any] | None:
        """The answer to what was asked last, as `ask`."""
        found = _heard(self._line, time.monotonic() + within)
        if found == {}:
            self._over = True
            raise ProjectError(self._ended())
        return found

    def where(self) -> str:
        """Where it was when it was last given up, as "shop/orders.py:12 in place"; "" if nobody knows."""
        try:
            at = still_at(self._output.read_text(errors="replace"))
        except OSError:
            return ""
        return at.removeprefix(os.path.join(self._root, ""))

    def close(self) -> None:
        """End it at once. It may be called twice."""
        if self._line.fileno() < 0:
            return
        if not (self._over or has_ended(self._line)):  # else its number may be another's by now
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)
        self._line.close()

    def _ended(self) -> str:
        try:
            words = self._output.read_text(errors="replace").strip().splitlines()[-3:]
        except OSError:
            words = []
        return "\n  ".join(["its process ended", *words])


class _Serving:
    word = "serve"

    def __init__(self, work: str) -> None:
        self.work = work

    def read(self, value: Any) -> Mapping[str, Any]:
        raise ProjectError(f"{self.work} served nobody: {value!r}")


def has_ended(line: socket.socket) -> bool:
    """Whether nobody is at the other side any more."""
    try:
        while line.recv(65536, socket.MSG_DONTWAIT):
            pass  # an answer that nobody waits for
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _heard(line: socket.socket, over: float) -> dict[str, Any] | None:
    """The next line; None if it is late, {} if the other side has gone."""
    data = b""
    waiting = select.poll()
    waiting.register(line, select.POLLIN)
    while not data.endswith(b"\n"):
        if not waiting.poll(max(over - time.monotonic(), 0) * 1000) and not data:
            return None
        try:
            chunk = line.recv(65536)
        except ConnectionError:
            chunk = b""
        if not chunk:
            return {}
        data += chunk
    found: dict[str, Any] = json.loads(data)
    return found
