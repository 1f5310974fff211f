"""In the child that runs a command line of the project and sees what it leaves running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

from pytest_celery_health.project.child import offspring

#: Seconds in which what a command has started may still end.
_LINGERS = 0.5
#: Bytes of its output, which is only shown and searched for passwords.
_OUTPUT = 1_000_000


def command(job: dict[str, Any]) -> dict[str, Any]:
    """How the job's command line ended: its exit code, None if it was killed because it had not ended within
    `gives_up` seconds; why it could not be run; what grows with each call of it."""
    line = job["line"]
    os.environ["PATH"] = os.pathsep.join(
        filter(None, [os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    )
    try:
        told = _run(line, job["gives_up"])
    except OSError as error:
        return {"missing": error.strerror or str(error)}
    if told["code"] is not None and (kept := offspring.lingering(_LINGERS)):
        # One that is kept for the next call is no leak.
        _run(line, job["gives_up"])
        more = offspring.lingering(_LINGERS)
        told["left"] = more[-1:] if len(more) > len(kept) else []
    return told


def _run(line: list[str], gives_up: float) -> dict[str, Any]:
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        child = subprocess.Popen(  # noqa: S603 - the contract's own
            line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        code, cpu = _end_of(child, began + gives_up)
        took = time.monotonic() - began
        output.seek(0)
        text = output.read(_OUTPUT).decode(errors="replace")
    return {"code": code, "cpu": cpu, "took": took, "text": text, "left": []}


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
        if child.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
