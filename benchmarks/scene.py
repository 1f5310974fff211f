"""What is looked at: brokers, a real worker, a fleet of simulated ones. All are processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from celery import Celery
from kombu import Connection

from benchmarks.app import BROKER, NAME, make
from pytest_celery_health.sandbox import brokers

ROOT = Path(__file__).resolve().parent.parent
RABBITMQ = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
START = 20.0


def redis() -> AbstractContextManager[str]:
    """A private Valkey or Redis server. Raises brokers.UnavailableError."""
    best, _ = brokers.choose("")
    return server("redis-server" if best == "fakeredis" else best)  # never a fake


@contextmanager
def server(name: str) -> Iterator[str]:
    """A private server of one of the sandbox's brokers. Raises brokers.UnavailableError."""
    _, broker = brokers.choose(name)
    with tempfile.TemporaryDirectory() as folder:
        launch = broker.launch(Path(folder), token_hex(8))
        process = subprocess.Popen(launch.argv, env={**os.environ, **launch.env}, stdout=subprocess.DEVNULL)
        try:
            until(lambda: broker.answers(launch), "the broker")
            yield launch.url
        finally:
            end(process)


def rabbitmq() -> str:
    """The URL of the local RabbitMQ, or of RABBITMQ_URL; "" if it cannot be reached."""
    with Connection(RABBITMQ, connect_timeout=2, transport_options={"max_retries": 0}) as connection:
        try:
            connection.connect()
        except OSError:
            return ""
    return RABBITMQ


@contextmanager
def app(broker: str) -> Iterator[Celery]:
    """An app with names of its own, which are taken off the broker at the end."""
    name = f"benchmark-{token_hex(3)}"
    app = make(broker, name)
    try:
        yield app
    finally:
        app.close()
        if broker.startswith("amqp"):
            with suppress(Exception), Connection(broker) as connection:
                for exchange in (f"{name}.pidbox", f"reply.{name}.pidbox", f"{name}.ev", f"{name}-q", name):
                    connection.default_channel.exchange_delete(exchange)


def environment(app: Celery) -> dict[str, str]:
    """What `benchmarks.app` needs in another process to be this app."""
    return {
        **os.environ,
        BROKER: app.conf.broker_url,
        NAME: app.conf.control_exchange,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@contextmanager
def worker(app: Celery) -> Iterator[str]:
    """A real prefork worker; its name."""
    name = "real@benchmark"
    argv = [sys.executable, "-m", "celery", "-A", "benchmarks.app", "worker"]
    options = ["-c", "2", "-n", name, "-l", "ERROR", "--without-mingle"]
    process = subprocess.Popen(
        [*argv, *options],
        env=environment(app),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: app.control.ping(limit=1, timeout=0.5), "the worker")
        yield name
    finally:
        end(process)


@contextmanager
def fleet(app: Celery, count: int) -> Iterator[list[str]]:
    """Simulated workers, in a process of their own so that they do not slow down who looks; their names."""
    argv = [sys.executable, "-m", "benchmarks.fleet", str(count)]
    process = subprocess.Popen(
        argv, env=environment(app), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        names = process.stdout.readline().split()
        if len(names) != count:
            raise RuntimeError("the simulated workers did not start")
        yield names
    finally:
        process.stdin.close()
        end(process, politely=False)
        process.stdout.close()


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + START
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not start within {START:.0f} s")
        time.sleep(0.02)


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes], *, politely: bool = True) -> None:
    """End a process and wait for it."""
    if politely:
        process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
