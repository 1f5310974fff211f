"""A worker of the app, as a child process: `python -m ...sandbox.children.worker TASK_FILE`."""

from __future__ import annotations

import contextlib
import importlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import celery
from celery import signals

from pytest_celery_health.sandbox.children.child import ENTRY_HEADER, Task
from pytest_celery_health.sandbox.drills.ports import listen_elsewhere

if TYPE_CHECKING:
    from celery import Celery

#: Processes or threads of a worker for which nobody said how many.
CONCURRENCY = 2


def main(path: str) -> None:
    task = Task(path)
    asked = task.asked
    options = ["-n", asked["node"], "-l", "INFO", "-c", str(asked["concurrency"] or CONCURRENCY)]
    options += ["--without-mingle", "--without-gossip"]
    if asked["pool"]:
        options += ["-P", asked["pool"]]
        celery.maybe_patch_concurrency(["celery", *options])
    if asked["rig"]:
        listen_elsewhere(dict(asked["rig"]["ports"]))
    app = task.load("worker", *options)
    own = _connect(app, task)
    if asked["rig"]:
        module, _, function = asked["rig"]["by"].partition(":")
        getattr(importlib.import_module(module), function)(app, task, own)
    options += ["-Q", ",".join(asked["queues"] or _known_queues(app))]
    if app.conf.worker_state_db:  # the project's own may be somebody else's
        options += ["-S", str(task.folder / f"{task.name}.state")]
    sys.argv[2:] = options
    app.worker_main(["worker", *options])


def _known_queues(app: Celery) -> list[str]:
    from pytest_celery_health.project.child.describe import describe

    return list(describe(app, "")["queues"])


def _connect(app: Celery, task: Task) -> tuple[Callable[..., None], ...]:
    told: set[str] = set()

    def ready(sender: Any, **_: Any) -> None:
        hub = getattr(sender, "hub", None)
        if hub is not None:
            _wake_on_signals(hub)
        threading.Thread(target=_prove, args=(app, task), daemon=True).start()

    def ran(task_id: str, task: Any, state: str | None = None, **_: Any) -> None:  # noqa: ARG001
        entry = getattr(task.request, ENTRY_HEADER, None)
        if entry and entry not in told:
            told.add(entry)
            teller.tell("ran", entry=entry, state=state)

    teller = task
    signals.worker_ready.connect(ready, weak=False)
    signals.task_postrun.connect(ran, weak=False)
    return ready, ran


def _prove(app: Celery, task: Task) -> None:
    """Say that we are ready once remote control answers: on Redis `worker_ready` comes before SUBSCRIBE."""
    node, started = task.asked["node"], time.monotonic()
    if app.conf.worker_enable_remote_control:
        patience = 0.1
        while time.monotonic() - started < task.asked["start_within"]:
            with app.connection_for_write() as connection:
                if app.control.broadcast(
                    "ping", destination=[node], reply=True, limit=1, timeout=patience, connection=connection
                ):
                    break
            patience = min(2 * patience, 1.0)
        else:
            return
    task.tell("ready")


def _wake_on_signals(hub: Any) -> None:
    """Have a signal end the event loop's poll, which would go on for up to ten seconds on AMQP."""
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.detach(), warn_on_full_buffer=False)

    def drain() -> None:
        with contextlib.suppress(BlockingIOError):
            woken.recv(4096)

    hub.add_reader(woken.fileno(), drain)


if __name__ == "__main__":
    main(sys.argv[1])
