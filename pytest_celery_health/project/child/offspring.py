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


def _children() -> list[int]:
    found: list[int] = []
    for thread in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended
            found += map(int, thread.read_text().split())
    return found
