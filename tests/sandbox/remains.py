"""A small project, a process that owns a sandbox of it, and what is left of a sandbox."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]

from pytest_celery_health.sandbox import Sandbox

APP = """
import os
from pathlib import Path
from celery import Celery

app = Celery("tiny", broker="redis://production.example:6379/0", backend="redis://production.example:6379/1")
app.conf.task_routes = {"tiny.pay": {"queue": "payments"}}
app.conf.beat_schedule = {
    "heartbeat": {"task": "tiny.touch", "schedule": 3600.0, "args": ["heartbeat"]},
    "nightly": {"task": "tiny.touch", "schedule": 0.1, "args": ["nightly"]},
}

@app.task(name="tiny.touch")
def touch(name):
    Path(os.environ["SCRATCH"], name).touch()

@app.task(name="tiny.pay")
def pay():
    touch("paid")
"""


@dataclass
class Remains:
    """Everything that a keeper's sandbox consists of, seen while it runs."""

    keeper: int
    folder: Path
    processes: list[psutil.Process] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        keeper = psutil.Process(self.keeper)
        self.processes = [keeper, *keeper.children(recursive=True)]
        for process in self.processes:
            with contextlib.suppress(psutil.Error):
                listening = [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
                self.ports |= {c.laddr.port for c in listening}

    @classmethod
    def of(cls, sandbox: Sandbox) -> Remains:
        client = sandbox._client
        assert client is not None
        return cls(client.ask("hello")["pid"], client.folder)

    def alive(self) -> list[str]:
        """What is left of it."""
        left = [f"process {p.pid}" for p in self.processes if p.is_running() and not _is_zombie(p)]
        left += [f"port {port}" for port in self.ports if _is_open(port)]
        return left + ([f"folder {self.folder}"] if self.folder.exists() else [])


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


OWNER = """
import json, os, sys
from pathlib import Path
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox, SandboxSpec

asked = json.loads(sys.argv[1])
if asked["attach"]:
    sandbox = Sandbox.attach(Path(asked["attach"]))
else:
    app = AppSpec(asked["app"], Path(asked["root"]), env=asked["env"])
    spec = {k: tuple(v) if isinstance(v, list) else v for k, v in asked["spec"].items()}
    sandbox = Sandbox(SandboxSpec(**spec), app)
    sandbox.start()
    if asked["share"]:
        sandbox.share(Path(asked["share"]))
client = sandbox._client
print(json.dumps({"keeper": client.ask("hello")["pid"], "folder": str(client.folder)}), flush=True)
sys.stdin.readline()
sandbox.close()
"""


@dataclass
class Owner:
    """A Python process that has a sandbox. It closes it and ends when its stdin is closed."""

    process: subprocess.Popen[str]
    remains: Remains

    def end(self, signal: int | None = None) -> int:
        assert self.process.stdin is not None
        if signal is None:
            self.process.stdin.close()
        else:
            self.process.send_signal(signal)
        return self.process.wait(20)
