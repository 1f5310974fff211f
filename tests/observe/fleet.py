"""Brokers, workers and beats as child processes, for the tests of the look."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.timing import wait_until

HERE = Path(__file__).parent
RABBIT = os.environ.get("TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")
_SERVER = ("--bind", "127.0.0.1", "--save", "", "--databases", "500")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rabbitmqctl(*words: str) -> str:
    done = subprocess.run(
        ["rabbitmqctl", "-q", *words], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


def import_for_looks() -> None:
    """What a first look imports takes longer than some tests let a look take, on a machine under load."""
    for name in ("celery", "kombu.transport.redis", "kombu.transport.pyamqp", "redis.sentinel"):
        importlib.import_module(name)
    for name in ("connect", "fleet", "queues.redis", "queues.amqp", "beat.redis_key", "worker_clock"):
        importlib.import_module(f"pytest_celery_health.observe.{name}")


@dataclass
class Server:
    """A redis-server of the test's own."""

    port: int
    process: subprocess.Popen[bytes]
    password: str = ""
    _databases: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, database: int = 0) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/{database}"

    def fresh(self) -> str:
        """The URL of a database that no other test uses."""
        return self.url(next(self._databases))

    def stop(self, *, sign: int = signal.SIGKILL) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(sign)
        self.process.wait(10)


StartRedis = Callable[..., Server]


def start_redis_server(folder: Path, *arguments: str, password: str = "", tls: bool = False) -> Server:
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        pytest.skip("no redis-server on the PATH")
    port = free_port()
    where = ("--port", "0", "--tls-port", str(port)) if tls else ("--port", str(port))
    secret = ("--requirepass", password) if password else ()
    process = subprocess.Popen(
        [binary, *where, *_SERVER, "--dir", str(folder), *secret, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: accepts(port), what="redis-server")
    return Server(port, process, password)


@dataclass
class WorkerProcess:
    """A worker, by its node name."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)
        wait_until(lambda: self._state() == "T", what="SIGSTOP")

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def _state(self) -> str:
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]


StartWorker = Callable[..., WorkerProcess]


def spawn(folder: Path, url: str, arguments: list[str], name: str, conf: dict[str, Any]) -> WorkerProcess:
    log = folder / f"{name}-{uuid4().hex[:6]}.log"
    environment = {
        **os.environ,
        "FLEET_BROKER": url,
        "FLEET_CONF": repr(conf),
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        "C_FORCE_ROOT": "1",
        "TMPDIR": str(folder),  # who is killed removes nothing
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "fleet_app", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    return WorkerProcess(name, process, log)


def wait_for_log(worker: WorkerProcess, line: str, *, within: float = 30.0) -> None:
    def logged() -> bool:
        text = worker.log.read_text(errors="replace")
        if worker.process.poll() is not None:
            pytest.fail(f"{worker.name} ended with {worker.process.returncode}:\n{text[-2000:]}")
        return line in text

    wait_until(logged, within=within, what=f"{line!r} in the log of {worker.name}")


def pool(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return arguments if "-P" in arguments else ("-P", "solo", *arguments)
