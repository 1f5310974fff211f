"""What the world is like, seen without a line of the code that holds faults."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from pytest_celery_health.sandbox.faults import FaultError
from pytest_celery_health.sandbox.world import World

#: Seconds in which nothing comes where nothing is to come.
SILENCE = 0.1


def greeting(url: str, words: bytes, silence: float = SILENCE) -> str:
    """What a raw socket meets at a broker's address: "answers", "silence", "refused", "reset" or "closed"."""
    place = urlsplit(url)
    try:
        with socket.create_connection((place.hostname, place.port), timeout=5) as client:
            client.sendall(words)
            client.settimeout(silence)
            return "answers" if client.recv(100) else "closed"
    except TimeoutError:
        return "silence"
    except OSError as error:
        return {errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.EPIPE: "reset"}[
            error.errno or 0
        ]


def redis_cli(url: str, *command: str) -> str:
    """What redis-cli prints, or its error."""
    place = urlsplit(url)
    login = ["-a", place.password, "--no-auth-warning"] if place.password else []
    done = subprocess.run(
        ["redis-cli", "-h", "127.0.0.1", "-p", str(place.port), *login, *command],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return (done.stdout + done.stderr).strip()


def rabbit_clients(world: World) -> set[int]:
    """The ports of who is connected to a RabbitMQ, as its own tool lists them."""
    launch = world.sandbox.launch
    done = subprocess.run(
        [Path(launch.argv[0]).with_name("rabbitmqctl"), "-q", "list_connections", "peer_port"],
        env={"PATH": os.environ.get("PATH", os.defpath), **launch.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {int(line) for line in done.stdout.split() if line.isdecimal()}


def ports(process: psutil.Process) -> set[int]:
    """Those from which a process is connected, says the kernel."""
    return {each.laddr.port for each in process.net_connections() if each.status == "ESTABLISHED"}


def direct(world: World) -> str:
    """The broker's own URL, as its workers use it."""
    return world.sandbox.launch.url


def keys(world: World) -> set[str]:
    """Every key of a Redis."""
    return set(redis_cli(direct(world), "KEYS", "*").split("\n")) - {""}


def mailboxes(world: World) -> int:
    """How many workers listen to remote control, says Redis."""
    return int(redis_cli(direct(world), "PUBLISH", "/0.celery.pidbox", ""))


def workers(world: World, name: str = "w1") -> list[psutil.Process]:
    """The main process of a worker of this world, and its children."""
    folder = str(world.sandbox.folder)
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            main = process.ppid() == world.sandbox._running().ask("hello")["pid"]
        except psutil.Error:
            continue
        if main and f"{folder}/{name}.json" in command and process.status() != psutil.STATUS_ZOMBIE:
            return [process, *process.children(recursive=True)]
    return []


def refused(text: str) -> Any:
    """As pytest.raises, of a FaultError with this in its message."""
    return pytest.raises(FaultError, match=re.escape(text))


def stopped(processes: list[psutil.Process]) -> bool:
    """Whether all stand still, says the kernel."""
    return bool(processes) and all(process.status() == psutil.STATUS_STOPPED for process in processes)
