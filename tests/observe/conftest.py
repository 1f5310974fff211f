"""Private brokers and real workers, each a child process that is gone at the end of its test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.observe.fleet import (
    RABBIT,
    Server,
    StartRedis,
    StartWorker,
    WorkerProcess,
    accepts,
    import_for_looks,
    pool,
    rabbitmqctl,
    spawn,
    start_redis_server,
    wait_for_log,
)


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    import_for_looks()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One redis-server for all tests that neither stop nor freeze it. Take a `fresh()` database each."""
    server = start_redis_server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    """Starts redis-servers of the test's own, with these arguments."""
    servers = []

    def start(*arguments: str, password: str = "", tls: bool = False) -> Server:
        servers.append(start_redis_server(tmp_path, *arguments, password=password, tls=tls))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def redis_url(redis_server: Server) -> str:
    """A database of the test's own."""
    return redis_server.fresh()


@pytest.fixture
def rabbit_url() -> str:
    """The RabbitMQ of this machine. Use `rabbit_exchange` as control exchange, to be alone on it."""
    if not accepts(5672):
        pytest.skip("no RabbitMQ on 127.0.0.1:5672")
    return RABBIT


@pytest.fixture
def vhost_url(rabbit_url: str) -> Iterator[str]:
    """A virtual host of that RabbitMQ in which nobody else looks or works."""
    name = f"test-{uuid4().hex[:12]}"
    try:
        rabbitmqctl("add_vhost", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"rabbitmqctl makes no vhost: {error}")
    try:
        rabbitmqctl("set_permissions", "-p", name, urlsplit(rabbit_url).username or "", ".*", ".*", ".*")
        yield urlsplit(rabbit_url)._replace(path=f"/{name}").geturl()
    finally:
        rabbitmqctl("delete_vhost", name)


@pytest.fixture(scope="module")
def _rabbit_exchanges() -> Iterator[list[str]]:
    """Deleted when no worker of a test is left, which would make them again."""
    from tests.support.rabbit import forget

    names: list[str] = []
    yield names
    for name in names:
        forget(RABBIT, name, f"{name}.q", f"{name}.ev")


@pytest.fixture
def rabbit_exchange(rabbit_url: str, _rabbit_exchanges: list[str]) -> str:
    """A control exchange of the test's own, so that nobody else's worker answers. What its app calls after
    it, a queue `NAME.q` and an exchange of events `NAME.ev`, goes with it."""
    _rabbit_exchanges.append(f"test-{uuid4().hex[:12]}")
    return _rabbit_exchanges[-1]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers of `fleet_app`, one process group each: start(url, "w1@x", "-P", "prefork", ...).

    `conf` becomes the app's configuration. Returns when the worker says that it is ready.
    """
    workers: list[WorkerProcess] = []

    def start(
        url: str, name: str = "w1@x", *arguments: str, ready: bool = True, **conf: Any
    ) -> WorkerProcess:
        worker = spawn(tmp_path, url, ["worker", "-n", name, "-l", "INFO", *pool(arguments)], name, conf)
        workers.append(worker)
        if ready:
            wait_for_log(worker, " ready.")
        return worker

    yield start
    for worker in workers:
        worker.kill()


@pytest.fixture
def start_beat(tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a beat of `fleet_app`, which answers ping where Celery can (5.7)."""
    beats: list[WorkerProcess] = []

    def start(url: str, **conf: Any) -> WorkerProcess:
        schedule = tmp_path / f"schedule-{uuid4().hex}"
        beat = spawn(tmp_path, url, ["beat", "-l", "INFO", "-s", str(schedule)], "beat", conf)
        beats.append(beat)
        return beat

    yield start
    for beat in beats:
        beat.kill()
