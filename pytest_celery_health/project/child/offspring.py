"""What a child of ours started ends with it, also what left its process group: daemons, `setsid`."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
#: Seconds after which processes that SIGKILL does not end are left to the system.
_LAST_RESORT = 1.0
#: Characters of a command line.
_LONGEST = 60


def adopt() -> None:
    """From now on orphans below this process become its children, on Linux, where it can find them."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end() -> None:
    """End every child of this process, and those that it comes to have by that."""
    over = time.monotonic() + _LAST_RESORT
    while (children := _children()) and time.monotonic() < over:
        for pid in children:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with suppress(OSError):
                os.waitpid(pid, 0)


def lingering(within: float) -> list[str]:
    """The command lines of the children, orphans included, that have not ended in `within` seconds."""
    over = time.monotonic() + within
    while True:
        running = [pid for pid in _children() if not _reaped(pid)]
        if not running or time.monotonic() > over:
            return [_command_line(pid) for pid in sorted(running)]
        time.sleep(0.01)


def _reaped(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def _command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return str(pid)
    return " ".join(words).strip()[:_LONGEST]


def _children() -> list[int]:
    found: list[int] = []
    for thread in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended
            found += map(int, thread.read_text().split())
    return found
