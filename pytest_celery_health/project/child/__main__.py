"""`python -m pytest_celery_health.project.child describe|call|MODULE:FUNCTION`.

One line of JSON on stdin is the job; the answer goes to the file descriptor that it names. The parent
keeps stdin open: at its end, whatever the reason, this process and all it started end too.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
from typing import Any, NoReturn

from pytest_celery_health.project.child import offspring


def main() -> NoReturn:
    """Do the job and end at once: no exit handler or lingering thread of the user's is waited for."""
    stdin = os.dup(0)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    job = json.loads(_read_line(stdin))
    for name in {"answer_fd", "control_fd"} & job.keys():
        os.set_inheritable(job[name], False)
    offspring.adopt()
    threading.Thread(target=_end_with_parent, args=(stdin,), daemon=True).start()
    # Shown by the parent when it has to give up.
    faulthandler.dump_traceback_later(max(job["timeout"] * 0.9 - 0.05, 0.05), file=os.dup(2))
    try:
        answer = _work(sys.argv[1], job)
    except BaseException as error:  # noqa: BLE001  (user code may raise anything, SystemExit too)
        answer = json.dumps({"error": _why(error, job)})
    offspring.end()  # before the parent has the answer, and ends this process
    data = answer.encode()
    with os.fdopen(job["answer_fd"], "wb") as pipe:
        pipe.write(len(data).to_bytes(8, "big") + data)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _why(error: BaseException, job: dict[str, Any]) -> str:
    from pytest_celery_health.project.child.tell import tell

    return tell(error, job)


def _read_line(fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        line += chunk
    return line


def _end_with_parent(fd: int) -> None:
    os.read(fd, 1)
    offspring.end()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _work(what: str, job: dict[str, Any]) -> str:
    from pytest_celery_health.project import values
    from pytest_celery_health.project.child.load import attribute, load, set_up_django

    if ":" in what:  # one of ours, which loads the app itself
        return values.dump({"value": attribute(what)(job)})

    app = load(job["app"], hooks=job["hooks"], target=job["target"])
    if what == "describe":
        from pytest_celery_health.project.child.describe import describe

        return values.dump({"value": describe(app, job["app"])})
    job["doing"] = f"{job['function']}()"
    set_up_django()
    function = attribute(job["function"])
    found = function()
    if hasattr(found, "__await__"):
        found.close()
        raise TypeError("it is async; wrap it in a function that is not")
    return values.dump({"value": found})


if __name__ == "__main__":
    main()
