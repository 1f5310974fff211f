"""The process that is parent of everything a sandbox starts, and outlives whoever asked for it.

Run as a script, `python -I -S keeper.py FD PID`, in a session of its own: FD is a connected stream socket to
the first client, PID that client. It lives while a client is connected and alive. When the last has gone, for
whatever reason, it ends every child and every descendant of a child, removes the sandbox's folder and exits.

Standard library only, without site-packages: it must start in milliseconds and have nothing to fail on.

Clients send one JSON object a line and get one back, with the number that was its `request`. Children tell
things (`{"name", "what", ...}`) as datagrams on the socket `tell` in the folder. Clients ask for what was
told, and for exits: one that does not ask blocks nobody.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

#: Seconds that the app's processes get between SIGTERM and SIGKILL; the first of these alone, before their
#: children are asked too: an idle child of a prefork pool takes a second to see that its parent stops.
GRACE = 1.8
GRACE_ALONE = 0.25
BROKER_GRACE = 0.5
#: Seconds after which the keeper gives up on processes that SIGKILL does not end (a hung mount).
LAST_RESORT = 10.0

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"
_LIBC = ctypes.CDLL(None) if _LINUX else None


@dataclass
class Child:
    """A process that a client asked for. `stop` is the signal that asks it to end."""

    pid: int
    broker: bool
    stop: int
    code: int | None = None


class Keeper:
    def __init__(self) -> None:
        self.folder = _make_folder()
        self.children: dict[str, Child] = {}
        self.events: list[dict[str, Any]] = []
        self.state: Any = None
        self.at_end: list[tuple[str, str]] = []
        self.clients: dict[socket.socket, bytes] = {}
        self.last: socket.socket | None = None
        self.ending = False
        self.poll = selectors.DefaultSelector()
        if _LIBC is not None:
            # Orphans, such as daemons that a task forked, become children of ours and so can be found.
            _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.woken, wake = socket.socketpair()
        for end in (self.woken, wake):
            end.setblocking(False)
        self._wake = wake
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for each in (signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._asked_to_end)
        self.poll.register(self.woken, selectors.EVENT_READ, self._on_signal)
        self.tell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.tell.bind(os.path.join(self.folder, "tell"))
        self.poll.register(self.tell, selectors.EVENT_READ, self._on_tell)
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.door.bind(os.path.join(self.folder, "keeper"))
        self.door.listen(64)
        self.poll.register(self.door, selectors.EVENT_READ, self._on_door)

    def _asked_to_end(self, *_: object) -> None:
        self.ending = True

    def welcome(self, client: socket.socket, pid: int | None) -> None:
        """Live for this client: while its connection is open and, where we can watch it, its process alive.

        A process that it forked may hold the connection open for longer.
        """
        self.clients[client] = b""
        self.poll.register(client, selectors.EVENT_READ, partial(self._on_client, client))
        if _LINUX and pid:
            with contextlib.suppress(OSError, AttributeError):
                watched = os.pidfd_open(pid)
                self.poll.register(watched, selectors.EVENT_READ, partial(self._on_death, client, watched))

    def run(self) -> None:
        try:
            while self.clients and not self.ending:
                for key, _ in self.poll.select():
                    key.data()
        finally:
            self.end()

    # What the selector calls.

    def _on_signal(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.woken.recv(4096)
        self.reap()

    def _on_tell(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            told = json.loads(self.tell.recv(65536))
            if isinstance(told, dict):
                self.note(told)

    def _on_door(self) -> None:
        client, _ = self.door.accept()
        pid = None
        if _LINUX:
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            pid = struct.unpack("3i", credentials)[0]
        self.welcome(client, pid)

    def _on_death(self, client: socket.socket, watched: int) -> None:
        self.poll.unregister(watched)
        os.close(watched)
        self.drop(client)

    def _on_client(self, client: socket.socket) -> None:
        try:
            data = client.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self.drop(client)
            return
        *lines, self.clients[client] = (self.clients[client] + data).split(b"\n")
        for line in filter(None, lines):
            ask: dict[str, Any] = {}
            try:
                ask = json.loads(line)
                reply = self.obey(client, ask)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one request is its sender's to know
                reply = {"error": f"{type(error).__name__}: {error}"}
            try:
                client.sendall(json.dumps({**reply, "request": ask.get("request")}).encode() + b"\n")
            except OSError:
                self.drop(client)
                return

    def drop(self, client: socket.socket) -> None:
        if self.clients.pop(client, None) is not None:
            self.poll.unregister(client)
            if self.clients:
                client.close()
            else:
                self.last = client  # it waits for its connection to close when all is done

    # What clients ask for.

    def obey(self, client: socket.socket, ask: dict[str, Any]) -> dict[str, Any]:
        do = ask["do"]
        if do == "hello":
            return {"folder": self.folder, "pid": os.getpid()}
        if do == "spawn":
            return {"pid": self.spawn(ask)}
        if do == "events":
            self.reap()
            return {"events": self.events[ask["since"] :]}
        if do == "kill":
            self.kill(ask["names"])
            return {}
        if do == "signal":
            child = self.children.get(ask["name"])
            if child is not None and child.code is None:
                _signal(child.pid, ask["number"])
            return {}
        if do == "processes":
            self.reap()
            child = self.children.get(ask["name"])
            alive = child is not None and child.code is None
            return {"pids": [child.pid, *descendants(child.pid)] if child is not None and alive else []}
        if do == "put":
            self.state = ask["state"]
            return {}
        if do == "get":
            return {"state": self.state}
        if do == "remove":
            self.at_end.append((ask["path"], ask["holds"]))
            return {}
        if do == "others":
            return {"others": self.others(client)}
        raise ValueError(f"no such request: {do}")

    def others(self, client: socket.socket) -> int:
        """How many clients there are besides this one, without those whose end is yet to be noticed."""
        for other in [each for each in self.clients if each is not client]:
            try:
                gone = not other.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                gone = False
            except OSError:
                gone = True
            if gone:
                self.drop(other)
        return len(self.clients) - 1

    def spawn(self, ask: dict[str, Any]) -> int:
        with open(ask["log"], "ab") as log:
            process = subprocess.Popen(  # noqa: S603
                ask["argv"],
                env=ask["env"],
                cwd=ask["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_as_child,
            )
        process.returncode = 0  # reaped by reap(), together with the strays
        self.children[ask["name"]] = Child(process.pid, ask["broker"], ask["stop"])
        return process.pid

    def note(self, event: dict[str, Any]) -> None:
        if len(self.events) < 10_000:
            self.events.append(event)

    def reap(self) -> bool:
        """Collect what has ended; whether any child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            for name, child in self.children.items():
                if child.pid == pid and child.code is None:
                    child.code = os.waitstatus_to_exitcode(status)
                    self.note({"name": name, "what": "exit", "code": child.code})

    def kill(self, names: list[str]) -> None:
        """End these children, and what they forked, at once."""
        doomed = [child for name, child in self.children.items() if name in names and child.code is None]
        for child in doomed:
            for pid in [child.pid, *descendants(child.pid)]:
                _signal(pid, signal.SIGKILL)
        self._wait(doomed, LAST_RESORT)
        for name in names:
            self.children.pop(name, None)

    # The end.

    def end(self) -> None:
        for one in (self.door, self.tell):  # nobody joins any more
            self.poll.unregister(one)
            one.close()
        for path, holds in self.at_end:
            with contextlib.suppress(OSError):
                with open(path, encoding="utf-8") as file:
                    ours = holds in file.read()
                if ours:
                    os.unlink(path)
        asked = self._ask_to_end(broker=False)
        self._wait(asked, GRACE_ALONE)
        for child in asked:
            for pid in descendants(child.pid) if child.code is None else ():
                _signal(pid, signal.SIGTERM)
        self._wait(asked, GRACE - GRACE_ALONE)
        self._wait(self._ask_to_end(broker=True), BROKER_GRACE)
        over = time.monotonic() + LAST_RESORT
        while True:
            groups = [child.pid for child in self.children.values() if child.code is None]
            for pid in groups:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
            for pid in descendants(os.getpid()):
                _signal(pid, signal.SIGKILL)
            if not self.reap() or time.monotonic() > over:
                break
            self._pause(0.01)
        for _ in range(3):  # a process that dies may still be writing when its folder goes
            shutil.rmtree(self.folder, ignore_errors=True)
            if not os.path.exists(self.folder):
                break
            self._pause(0.05)

    def _ask_to_end(self, *, broker: bool) -> list[Child]:
        asked = [child for child in self.children.values() if child.broker is broker and child.code is None]
        for child in asked:
            _signal(child.pid, child.stop)
            _signal(child.pid, signal.SIGCONT)  # one that was frozen could not end
        return asked

    def _wait(self, children: list[Child], seconds: float) -> None:
        over = time.monotonic() + seconds
        while self.reap() and any(child.code is None for child in children):
            left = over - time.monotonic()
            if left <= 0:
                return
            self._pause(left)

    def _pause(self, seconds: float) -> None:
        """Until a child ends, at most `seconds`."""
        waiting = selectors.DefaultSelector()
        waiting.register(self.woken, selectors.EVENT_READ)
        waiting.select(seconds)
        waiting.close()
        with contextlib.suppress(BlockingIOError):
            self.woken.recv(4096)


def _make_folder() -> str:
    """A private folder, with a path that is short enough for sockets in it."""
    longest = len("/celery-health-xxxxxxxx/keeper")
    place = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="celery-health-", dir=place if len(place) + longest < 100 else "/tmp")  # noqa: S108


def _as_child() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_with_parent()


def end_with_parent() -> None:
    """On Linux, have the kernel kill this process when the one that started it has ended."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def descendants(root: int) -> list[int]:
    """Every process below `root`, from /proc where there is one, else from ps."""
    parents: dict[int, int] = {}
    if os.path.isdir("/proc/self"):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                    # The command's name stands in parentheses and may hold more of them.
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    else:
        command = ["ps", "-A", "-o", "pid=,ppid="]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        for line in listed.stdout.splitlines():
            pid, parent = line.split()
            parents[int(pid)] = int(parent)
    below: list[int] = []
    level = {root}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        below.extend(level)
    return below


def main() -> None:
    first = socket.socket(fileno=int(sys.argv[1]))
    os.chdir("/")
    keeper = Keeper()
    keeper.welcome(first, int(sys.argv[2]))
    keeper.run()


if __name__ == "__main__":
    main()
