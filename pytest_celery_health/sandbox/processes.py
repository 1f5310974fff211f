"""What the kernel says of a process. Standard library only."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path


def state(pid: int) -> str:
    """The letter of its state, "T" for a stopped one, "Z" for a zombie; "" when there is none."""
    if not Path("/proc/self").exists():
        command = ["ps", "-o", "state=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()[:1]  # noqa: S603
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return state(pid) not in ("", "Z")


def send(pids: list[int], number: signal.Signals) -> None:
    """Send those that are there a signal."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
