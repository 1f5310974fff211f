"""An app that is loaded once, in a sealed child process, and asked in as many forks of it as are wanted.

A session is a process in which the app is loaded and nothing of it has been called. What is asked of it may
hang: it is given up, and where it was is told. Standard library only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pytest_celery_health.masking import mask
from pytest_celery_health.project.describe import Asked, Sealing, still_at, still_in
from pytest_celery_health.project.info import AppSpec, ProjectError

#: Seconds that what a session needs gets to load, and its fork to come.
_OPENED_WITHIN = 30.0


class Sessions:
    """The process that has loaded the app, for several threads at once. `close()` ends it and its forks.

    work: "module:function" of ours that loads the app and calls `project.child.sessions.serve`. Its time runs
    from now, and nothing is waited for before `told()` or `open()`.

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
        self._app = spec.app
        self._root = str(spec.root.absolute())
        self._lock = threading.Lock()
        self._told: Mapping[str, Any] | None = None
        self._opened: list[Session] = []
        ours, theirs = socket.socketpair()
        self._control = _Line(ours)
        with theirs:
            job = {"control_fd": theirs.fileno()}
            try:
                self._asked: Asked[None] = Asked(
                    _Serving(work), spec, job, timeout, sealed, environ, (theirs.fileno(),)
                )
            except BaseException:
                self._control.close()
                raise

    def __enter__(self) -> Sessions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def told(self) -> Mapping[str, Any]:
        """What the process told of what it has loaded, once it has. Raises ProjectError."""
        with self._lock:
            return self._begun()

    def open(self, **what: Any) -> Session:
        """A new session, for what the work is told. Raises ProjectError when that does not load."""
        with self._lock:
            self._begun()
            self._opened = [session for session in self._opened if not session.closed]
            ours, theirs = socket.socketpair()
            session = Session(_Line(ours), self._root)
            self._opened.append(session)
            try:
                with theirs:
                    self._control.say(what, theirs.fileno(), session.output)
                session.welcome(_OPENED_WITHIN)
            except _GoneError as error:
                session.close()
                raise ProjectError(f"{self._app}: no process for a call: {error}") from None
            except BaseException:
                session.close()
                raise
            return session

    def close(self) -> None:
        """End the process, and every session. It may be called twice, and while another thread waits."""
        for session in self._opened:
            session.close()
        self._asked.close()
        self._control.close()

    def _begun(self) -> Mapping[str, Any]:
        if self._told is None:
            with suppress(OSError, ValueError):  # of what another thread closed meanwhile
                self._asked.wait_for(self._control.fileno())
                try:
                    self._told = self._control.hear(_OPENED_WITHIN)
                except _GoneError:  # it says why elsewhere
                    self._asked.result()
            if self._told is None:
                raise ProjectError(f"{self._app}: no process for a call")
        return self._told


class Session:
    """One fork. It does one thing at a time."""

    def __init__(self, line: _Line, root: str) -> None:
        self.pid = 0
        self.closed = False
        self._line = line
        self._root = root
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def output(self) -> int:
        """The file that it writes to."""
        return self._file.fileno()

    def welcome(self, within: float) -> None:
        """Wait until it is there. Raises ProjectError when what it needs does not load, or it is late."""
        said = self._line.hear(within)
        if said is None:
            raise ProjectError(f"no process for a call within {within:g} s")
        if "error" in said:
            raise ProjectError(mask(said["error"]))
        self.pid = said["pid"]

    def ask(self, do: str, *, within: float, **what: Any) -> Mapping[str, Any] | None:
        """What it answers; None if it has not within so many seconds. Raises ProjectError if it ended."""
        self.begin(do, **what)
        return self.answer(within)

    def begin(self, do: str, **what: Any) -> None:
        """`ask`, for who fetches the answer later. Raises ProjectError if it has ended."""
        try:
            self._line.say({"do": do, **what})
        except _GoneError:
            raise ProjectError(self._ended()) from None

    def answer(self, within: float) -> Mapping[str, Any] | None:
        """The answer to what was asked last, as `ask`."""
        try:
            return self._line.hear(within)
        except _GoneError:
            raise ProjectError(self._ended()) from None

    def where(self) -> str:
        """Where it was when it was last given up, as "shop/orders.py:12 in place"; "" if nobody knows."""
        return still_at(self._written()).removeprefix(os.path.join(self._root, ""))

    def was_in(self, code: str) -> bool:
        """Whether a file whose path has this part is what it was in then."""
        return still_in(self._written(), code)

    def last_words(self, lines: int) -> list[str]:
        """The end of what it wrote."""
        return self._written().strip().splitlines()[-lines:]

    def close(self) -> None:
        """End it at once. It may be called twice."""
        if self.closed:
            return
        self.closed = True
        if self.pid and not self._line.has_ended():  # else its number may be another's by now
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)
        self._line.close()
        self._file.close()

    def _ended(self) -> str:
        return "\n  ".join(["its process ended", *self.last_words(3)])

    def _written(self) -> str:
        try:
            # Not read(): the fork writes where we would have read to.
            return os.pread(self.output, os.fstat(self.output).st_size, 0).decode(errors="replace")
        except (OSError, ValueError):  # closed
            return ""


class _Serving:
    word = "serve"

    def __init__(self, work: str) -> None:
        self.work = work

    def read(self, value: Any) -> None:
        raise ProjectError(f"{self.work} served nobody: {value!r}")


class _GoneError(OSError):
    """Nobody is at the other side any more."""


class _Line:
    """Lines of JSON on a socket."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._heard = b""

    def fileno(self) -> int:
        return self._line.fileno()

    def say(self, what: Mapping[str, Any], *descriptors: int) -> None:
        """Send it, with open files. Raises _GoneError."""
        data = json.dumps(what).encode() + b"\n"
        try:
            if descriptors:
                data = data[socket.send_fds(self._line, [data], list(descriptors)) :]
            self._line.sendall(data)
        except OSError:
            raise _GoneError("its process has ended") from None

    def hear(self, within: float) -> dict[str, Any] | None:
        """The next line; None if it is late. Raises _GoneError."""
        over = time.monotonic() + within
        while b"\n" not in self._heard:
            try:
                waiting = select.poll()
                waiting.register(self._line, select.POLLIN)
                if not waiting.poll(max(over - time.monotonic(), 0) * 1000):
                    return None
                part = self._line.recv(1 << 16)
            except (OSError, ValueError):  # reset, or closed by another thread
                part = b""
            if not part:
                raise _GoneError("its process has ended")
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def has_ended(self) -> bool:
        """Whether nobody is at the other side any more. What was not heard yet is lost."""
        try:
            while self._line.recv(1 << 16, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        """It may be called twice, and while another thread hears."""
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()
