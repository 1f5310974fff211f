"""What a task does in a drill, instead of what it does in production. It runs in the drill's worker."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from pytest_celery_health.record import log_tries

#: Seconds after which a body that waits to be ended goes on all the same.
_BOUND = 60.0
_TICK = 0.01
#: Seconds that Celery tries to connect to a broker that is gone.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Call:
    """What a body is told: the task, what the drill says to it, the message's arguments. `own`: its code."""

    task: Any
    said: Mapping[str, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    own: Callable[..., Any]


class DrillError(Exception):
    """What a task raises in a drill."""


class UnpicklableError(DrillError):
    """An exception that cannot be sent to the worker's main process as it is."""

    def __init__(self) -> None:
        super().__init__("the drill's exception that cannot be pickled")
        self.lock = sys._getframe()


def succeeds(_: Call) -> str:
    return "drilled"


def raises(_: Call) -> None:
    raise DrillError("the drill's task failed")


def retries(call: Call) -> str:
    """Retries `said["retries"]` times, at most as often as the task may: None is until it may no more."""
    most = call.task.max_retries if call.task.max_retries is not None else 3
    wanted = call.said["retries"]
    if wanted is not None:
        most = max(most, wanted)
        if call.task.request.retries >= wanted:
            return "drilled"
    raise call.task.retry(exc=DrillError("the drill's task failed"), countdown=0, max_retries=most)


def ignores(_: Call) -> None:
    raise Ignore


def rejects(_: Call) -> None:
    raise Reject("the drill's task rejects its message", requeue=False)


def outlasts(_: Call) -> None:
    """Runs until something ends it."""
    _wait_for(None)


def outlasts_all_limits(_: Call) -> None:
    """Goes on after a soft time limit."""
    try:
        _wait_for(None)
    except SoftTimeLimitExceeded:
        _wait_for(None)


def is_killed(_: Call) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed_some_times(call: Call) -> None:
    """Is killed `said["times"]` times, whoever runs it; then the worker is rid of it."""
    runs = Path(call.said["file"])
    with runs.open("a") as file:
        file.write(".")
    if runs.stat().st_size <= call.said["times"]:
        os.kill(os.getpid(), signal.SIGKILL)


def exits(_: Call) -> None:
    sys.exit(1)


def runs_out_of_memory(_: Call) -> None:
    raise MemoryError


def takes_no_arguments(call: Call) -> None:
    def run() -> None:
        pass

    run.__qualname__ = str(call.task.name).rpartition(".")[2]
    run(*call.args, **call.kwargs)


def returns_what_no_serializer_takes(_: Call) -> Any:
    return sys._getframe()  # neither JSON nor pickle


def raises_what_cannot_be_pickled(_: Call) -> None:
    raise UnpicklableError


def runs_on(call: Call) -> str:
    """Runs until the file `said["file"]` is there, and for `said["seconds"]` more."""
    _wait_for(Path(call.said["file"]))
    time.sleep(call.said["seconds"])
    return "drilled"


def runs_its_own_code(call: Call) -> None:
    """Runs the task's own code once the file `said["file"]` is there; `said["done"]` tells how it ended."""
    _wait_for(Path(call.said["file"]))
    # Celery would try again for six seconds, for each connection.
    call.task.app.conf.broker_connection_timeout = _PATIENCE
    ended = ""
    try:
        call.own(*call.args, **call.kwargs)
    except Exception as error:  # noqa: BLE001 - it is the user's code
        ended = f"raised {type(error).__name__}: {error}"
    done = Path(call.said["done"])
    part = done.with_suffix(".part")
    part.write_text(ended, encoding="utf-8")
    part.rename(done)


def logs(call: Call) -> str:
    """Writes log records; with `said["raises"]` it fails afterwards."""
    said, task = call.said, call.task
    log_tries.write(task.app, said["loggers"], said["turn"], levels=said["levels"])
    log_tries.bind(task.app, task.request.id)
    if said["raises"]:
        raise DrillError("the drill's task failed")
    return "drilled"


def tells_of_logging(call: Call) -> str:
    """Says how logging is set up here, once `said["others"]` processes are about to do so, or some time."""
    here = Path(f"{call.said['file']}.{os.getpid()}")
    here.touch()
    over = time.monotonic() + call.said["seconds"]
    while time.monotonic() < over and len(list(here.parent.glob(f"{here.stem}.*"))) < call.said["others"]:
        time.sleep(_TICK)
    log_tries.tell()
    return "drilled"


def _wait_for(file: Path | None) -> None:
    over = time.monotonic() + _BOUND
    while time.monotonic() < over and not (file is not None and file.exists()):
        time.sleep(_TICK)
