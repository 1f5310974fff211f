"""The connection of a process to the keeper of its sandbox: no thread and no callback reads it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_celery_health.sandbox import keeper

#: Seconds in which the keeper, which does nothing slow, must answer.
_PATIENCE = 10.0


class KeeperGoneError(Exception):
    """The keeper does not answer, so its sandbox is no more."""


class Client:
    """One client of a keeper, which lives as long as its last client."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        self._connection = connection
        self._connection.settimeout(_PATIENCE)
        self._process = process
        self._owner = os.getpid()
        self._heard = b""
        self._asked = 0
        self.folder = Path(self.ask("hello")["folder"])

    @classmethod
    def start(cls) -> Client:
        """Start a keeper, out of reach of signals to our process group."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", keeper.__file__, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        try:
            return cls(ours, process)
        except KeeperGoneError:
            ours.close()
            words = process.communicate(timeout=_PATIENCE)[1].decode(errors="replace").strip()
            why = words.rpartition("\n")[2]
            raise KeeperGoneError(f"the sandbox's keeper did not start: {why}") from None
        except BaseException:
            ours.close()
            process.wait()
            raise
        finally:
            if process.stderr is not None:
                process.stderr.close()

    @classmethod
    def join(cls, address: str) -> Client:
        """Become one more client of the keeper that listens at `address`. Raises KeeperGoneError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(address)
            return cls(connection)
        except OSError as error:
            connection.close()
            raise KeeperGoneError(f"nobody listens at {address}") from error
        except BaseException:
            connection.close()
            raise

    @property
    def address(self) -> str:
        return str(self.folder / "keeper")

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """The keeper's reply. Raises KeeperGoneError, or RuntimeError with the keeper's words."""
        self._asked += 1
        try:
            # Of a request that Ctrl-C cut short, half a line may have been sent.
            line = json.dumps({"do": do, "request": self._asked, **more})
            self._connection.sendall(b"\n" + line.encode() + b"\n")
            while True:
                reply = self._hear()
                if (
                    reply.get("request") == self._asked
                ):  # else of an earlier request, whose asker was interrupted
                    break
        except OSError as error:
            raise KeeperGoneError(f"the sandbox's keeper does not answer: {error}") from error
        if "error" in reply:
            raise RuntimeError(f"the sandbox's keeper: {reply['error']}")
        return reply

    def _hear(self) -> dict[str, Any]:
        while b"\n" not in self._heard:
            part = self._connection.recv(1 << 16)
            if not part:
                raise KeeperGoneError("the sandbox's keeper has ended")
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def spawn(
        self, name: str, argv: tuple[str, ...], env: Mapping[str, str], cwd: Path, *, broker: bool, stop: int
    ) -> None:
        """Have the keeper start a child. Its output goes to NAME.log in the folder."""
        log = str(self.folder / f"{name}.log")
        self.ask(
            "spawn", name=name, argv=argv, env=dict(env), cwd=str(cwd), log=log, broker=broker, stop=stop
        )

    def leave(self) -> bool:
        """Leave; True if we were the last, and then everything is gone. Raises TimeoutError if it is not."""
        if os.getpid() != self._owner:  # a fork: the sandbox is its parent's
            self._connection.close()
            return False
        try:
            last: bool = self.ask("others")["others"] == 0
        except KeeperGoneError:  # killed, and with it its children: their files are left
            last = True
            shutil.rmtree(self.folder, ignore_errors=True)
        with self._connection:
            if last:
                self._await_end()
        if self._process is not None:
            if last:
                self._process.wait()
            else:
                self._process.returncode = 0  # others need it still, so do not warn of it
        return last

    def _await_end(self) -> None:
        """Until the keeper's end of the connection closes, which is when it exits."""
        within = keeper.GRACE + keeper.BROKER_GRACE + keeper.LAST_RESORT + _PATIENCE
        self._connection.settimeout(within)
        try:
            self._connection.shutdown(socket.SHUT_WR)
            while self._connection.recv(1 << 16):
                pass
        except TimeoutError:
            raise TimeoutError(f"processes of the sandbox were still there after {within:g} s") from None
        except OSError:
            pass  # it has gone already
