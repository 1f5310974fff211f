"""What the sandbox's worker and beat have in common: how they begin, and how they tell the keeper."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_celery_health.masking import mask

if TYPE_CHECKING:
    from celery import Celery

#: The file that says, by being there, that the broker answers.
UP = "up"
#: The file in which a child leaves what the app says of itself.
INFO = "app.json"
#: Header of the messages that our beat sends: the name of the schedule's entry.
ENTRY_HEADER = "celery_health_entry"


class Task:
    """What a child is to do, as the parent wrote it: see `Sandbox._child`."""

    def __init__(self, path: str) -> None:
        self.folder = Path(path).parent
        self.asked: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        self.name: str = self.asked["name"]

    def tell(self, what: str, **more: Any) -> None:
        """Tell the keeper; a keeper that has gone ends us anyway."""
        told = json.dumps({"name": self.name, "what": what, **more}).encode()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(1)
            out.sendto(told, str(self.folder / "tell"))

    def fail(self, message: str, log: str = "", **more: Any) -> None:
        """End this child, telling why, and `more`. The log gets `log`, or the message where there is none."""
        # The log first: who is told reads it at once.
        print(mask(log or message), file=sys.stderr, flush=True)  # noqa: T201 - stderr is its log
        self.tell("wrong", why=mask(message), **more)
        os._exit(1)  # whatever threads the app's modules started

    def load(self, *argv: str) -> Celery:
        """The app, once the broker is up: its modules may use it when they are imported.

        `argv` is what the process looks like to code that reads `sys.argv`.
        """
        from kombu.serialization import prepare_accept_content

        from pytest_celery_health.project.child.load import HookError, LoadError, load

        self._wait_for_broker()
        self._keep_shared_memory()
        sys.argv = ["celery", *argv]
        try:
            app = load(self.asked["app"], hooks=self.asked["hooks"], target=self.asked["target"])
        except HookError as error:
            self.fail(str(error), key="hook", mistakes=[str(error)])
        except LoadError as error:
            self._mistaken(str(error))
        except ModuleNotFoundError as error:
            if error.name and f"{self.asked['app'].partition(':')[0]}.".startswith(f"{error.name}."):
                # A conftest.py may have put its folder on the path of the tests' own process.
                setting = "pythonpath, in [tool.pytest.ini_options]"
                self._mistaken(f"the sandbox finds no module {error.name}; name its folder in {setting}")
            self.fail(f"{type(error).__name__}: {error}", log=_trace(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the app's own modules
            self.fail(f"{type(error).__name__}: {error}", log=_trace(error))
        options = {**(app.conf.broker_transport_options or {}), **self.asked["options"]}
        app.conf.broker_transport_options = options
        app.conf.task_always_eager = False  # settings for unit tests often say otherwise
        if "application/json" in prepare_accept_content(app.conf.accept_content):
            # Workers answer in the tasks' serializer, of which a look reads JSON only.
            app.control.mailbox.serializer = "json"
        if self.asked["describe"]:
            self._describe(app)
        return app

    def _mistaken(self, why: str) -> None:
        """Fail as `app` is wrong, unless a hook says what the app is."""
        if self.asked["hooks"]:
            self.fail(why)
        self.fail(why, key="app", mistakes=[why])

    def _keep_shared_memory(self) -> None:
        """Have the files behind shared memory and managers go with the sandbox: who is killed removes none.

        billiard asks multiprocessing for the place. TMPDIR stays as it is: the tests may look there too.
        """
        process: Any = multiprocessing.current_process()
        process._config["tempdir"] = str(self.folder)

    def _wait_for_broker(self) -> None:
        over = time.monotonic() + self.asked["start_within"]
        while not (self.folder / UP).exists():
            if time.monotonic() > over:
                self.fail("the broker did not come up")
            time.sleep(0.01)

    def _describe(self, app: Celery) -> None:
        from pytest_celery_health.project.child.describe import describe
        from pytest_celery_health.project.values import dump
        from pytest_celery_health.sandbox.brokers import write_private

        part = self.folder / f"{INFO}.part"
        write_private(part, dump(describe(app, self.asked["app"])))
        part.rename(self.folder / INFO)
        self.tell("described")


def _trace(error: BaseException) -> str:
    """Its traceback, without the import system's frames between the app's own."""
    lines = traceback.format_exception(error)
    return "".join(line for line in lines if not line.startswith('  File "<frozen importlib')).rstrip()
