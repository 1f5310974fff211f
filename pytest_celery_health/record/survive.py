"""Put the handlers of the app's signals about tasks to the test, each in a process that can be given up.

The processes are forked, as those of a pool are, once the app has started as a worker does.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import select
import signal
import sysconfig
import traceback
import warnings
from collections import deque
from collections.abc import Mapping
from typing import Any, NoReturn

from celery import signals

from pytest_celery_health.durations import spell
from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.project.child.describe import own_tasks
from pytest_celery_health.project.child.handlers import relative, start
from pytest_celery_health.record import payloads
from pytest_celery_health.record.hostile import SIGNALS
from pytest_celery_health.record.trial import Trying, tasks_of

_AT_ONCE = 4
#: Seconds that a process gets before its first call, and for what that imports; and a call beyond its budget.
_BEGIN = 10.0
_GRACE = 0.5
#: The part of the job's time that is spent on handlers.
_SHARE = 0.8
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in ')
_IMPORTING = 'File "<frozen importlib._bootstrap>"'
_OURS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def survive(job: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Trials`. Raises whatever the user's code raises while it is loaded."""
    deadline = Deadline(job["timeout"] * _SHARE)
    app, worker, connects = start(job)
    names = set(job["names"])
    own = own_tasks(app)
    tasks = own or [payloads.stand_in(app)]
    trials = []
    for connect in connects:
        wanted = connect.own or connect.name in names
        if wanted and connect.entry is not None and connect.signal_name in SIGNALS:
            said = connect.plain(app, job["path"], 0)
            head = {name: said[name] for name in ("signal", "name", "where", "own")}
            about = tasks_of(connect, tasks)
            trying = Trying(connect, app, about, worker.consumer, frozenset(job["secrets"]), job["path"])
            trials.append(_Trial(head, trying, job["within"]))
            if not about:
                trials[-1].head["unseen"] = "is connected for a sender that never sends the signal"
    faulthandler.cancel_dump_traceback_later()  # its thread is not in a fork, which would wait for it
    waiting = deque(trial for trial in trials if trial.trying.tasks)
    running: list[_Trial] = []
    while (waiting or running) and not deadline.passed:
        while waiting and len(running) < _AT_ONCE:
            running.append(waiting.popleft())
            running[-1].begin()
        _read(running, deadline)
        running = [trial for trial in running if not trial.over]
    for trial in [*running, *waiting]:
        trial.give_up(f"was not called to the end: {spell(deadline.seconds)} were over")
    return {"seen": [{**trial.head, "calls": trial.calls} for trial in trials], "tasks": len(own)}


def _read(running: list[_Trial], deadline: Deadline) -> None:
    """Take what the processes tell, until there is something or one of them is late."""
    poll = select.poll()
    for trial in running:
        poll.register(trial.pipe, select.POLLIN)
    left = min(deadline.left(), *(trial.deadline.left() for trial in running))
    ready = {fd for fd, _ in poll.poll(left * 1000 + 1)}
    for trial in running:
        if trial.pipe in ready:
            trial.read()
        elif trial.deadline.passed:
            trial.is_stuck()


class _Trial:
    """A handler, and the process that calls it. head, calls: the fields of its `Trial` and of its `Call`s."""

    def __init__(self, head: dict[str, Any], trying: Trying, within: float) -> None:
        self.head = head
        self.calls: list[dict[str, Any]] = []
        self.trying = trying
        self.over = False
        self.pipe = -1
        self.deadline = Deadline(_BEGIN)
        self._within = within
        self._pid = 0
        self._dump = -1
        self._buffer = b""
        self._call: dict[str, Any] | None = None
        self._imports = False

    def begin(self) -> None:
        self.deadline = Deadline(_BEGIN)
        self.pipe, tell = os.pipe()
        self._dump, dump = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking while there are threads
            self._pid = os.fork()
        if not self._pid:
            _in_fork(self.trying, tell, dump)
        os.close(tell)
        os.close(dump)

    def read(self) -> None:
        chunk = os.read(self.pipe, 65536)
        if not chunk:
            self._has_ended()
            return
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            what, said = json.loads(line)
            if what == "begin":
                self._call = said
                self.deadline = Deadline(self._within + _GRACE)
            elif what == "call":
                self._call = None
                self.calls.append(said)
            else:
                self.head |= said

    def is_stuck(self) -> None:
        """Its call takes too long: ask where it is, and end it."""
        os.kill(self._pid, signal.SIGUSR1)
        text = ""
        poll = select.poll()
        poll.register(self._dump, select.POLLIN)
        while poll.poll(100 if text else 1000):
            chunk = os.read(self._dump, 65536)
            if not chunk:
                break
            text += chunk.decode(errors="replace")
        if _IMPORTING in text and not self._imports:
            self._imports = True  # once for each process, and no part of what a call takes
            self.deadline = Deadline(_BEGIN)
            return
        where = relative(_place(text), self.trying.path)
        if self._call is None:
            self.give_up(f"is not called: its process does not start; it is at {where}")
            return
        self.calls.append({**self._call, "took": self._within + _GRACE, "stuck": where})
        self.give_up("")

    def give_up(self, why: str) -> None:
        self.head["unseen"] = why
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._close()

    def _has_ended(self) -> None:
        code = os.waitstatus_to_exitcode(self._close())
        if self._call is not None:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            self.calls.append({**self._call, "error": f"ended its process, which {how},"})
        elif code:
            self.head["unseen"] = "is not called: its process ended at once"

    def _close(self) -> int:
        self.over = True
        _, status = os.waitpid(self._pid, 0)
        os.close(self.pipe)
        os.close(self._dump)
        return status


def _in_fork(trying: Trying, pipe: int, dump: int) -> NoReturn:
    def tell(what: str, said: Mapping[str, Any]) -> None:
        data = json.dumps([what, said]).encode() + b"\n"
        while data:
            data = data[os.write(pipe, data) :]

    code = 1
    try:
        faulthandler.register(signal.SIGUSR1, file=dump, all_threads=False, chain=False)
        # What a pool tells its new process: threads of the first one are gone.
        signals.worker_process_init.send(sender=None)
        trying.run(tell)
        code = 0
    except BaseException:  # noqa: BLE001 - it must not come out of the fork
        traceback.print_exc()
    finally:
        os._exit(code)


def _place(dump: str) -> str:
    """The innermost of the user's own frames, else the innermost."""
    library = (sysconfig.get_path("stdlib"), _OURS, "<frozen")
    frames = [(found["file"], found["line"]) for found in _FRAME.finditer(dump)]
    own = [frame for frame in frames if not frame[0].startswith(library) and "-packages" not in frame[0]]
    file, line = next(iter(own or frames), ("an unknown place", ""))
    return f"{file}:{line}".rstrip(":")
