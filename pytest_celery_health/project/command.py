"""A command line of the project, judged by its exit code. Standard library only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress

from pytest_celery_health.facts import Answer
from pytest_celery_health.masking import mask, secrets_in
from pytest_celery_health.project.describe import Sealing, child_environ
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.project.probe import give_up_after

_LONGEST = 300


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
