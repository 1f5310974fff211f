"""Every way to a broker that a team may have: sockets, TLS, sentinels, failover lists, passwords."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from pytest_celery_health.facts import AskQueues, AskWorkers, Queue, Unseen, Workers
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.target import Target
from tests.observe.fleet import Server, StartRedis, StartWorker, accepts, free_port
from tests.support.timing import wait_until

pytestmark = pytest.mark.slow


def sees_worker(url: str, **more: Any) -> bool:
    snapshot = look(Target("t", url, **more), [AskWorkers(), AskQueues(("celery",))], deadline=5).snapshot
    assert isinstance(snapshot.workers, Workers), snapshot.workers
    queues = snapshot.queues(["celery"])
    assert not isinstance(queues, Unseen)
    (queue,) = queues
    assert isinstance(queue, Queue)
    assert queue.ready == 0
    return [worker.name for worker in snapshot.workers.answered] == ["w1@x"]


def test_a_password(start_redis: StartRedis, start_worker: StartWorker) -> None:
    redis = start_redis(password="p@ss/word")
    url = f"redis://:p%40ss%2Fword@127.0.0.1:{redis.port}/3"
    start_worker(url)
    wait_until(lambda: sees_worker(url))


def test_a_failover_list_whose_first_broker_is_gone(redis_url: str, start_worker: StartWorker) -> None:
    start_worker(redis_url)
    wait_until(lambda: sees_worker(f"redis://127.0.0.1:{free_port()}/0;{redis_url}"))


def test_a_unix_socket(start_redis: StartRedis, start_worker: StartWorker, tmp_path: Path) -> None:
    path = Path(os.path.relpath(tmp_path / "r.sock", "/"))
    start_redis("--unixsocket", f"/{path}")
    url = f"redis+socket:///{path}?virtual_host=2"
    start_worker(url)
    wait_until(lambda: sees_worker(url))


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    """An authority, and a key and certificate of 127.0.0.1, for both sides."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "key", "certificate")}
    authority.cert_pem.write_to_path(files["ca"])
    issued.private_key_pem.write_to_path(files["key"])
    issued.cert_chain_pems[0].write_to_path(files["certificate"])
    return files


@pytest.fixture
def tls_redis(start_redis: StartRedis, certificates: dict[str, str]) -> Server:
    arguments = ("--tls-cert-file", certificates["certificate"], "--tls-key-file", certificates["key"])
    more = ("--tls-ca-cert-file", certificates["ca"], "--tls-auth-clients", "yes")
    return start_redis(*arguments, *more, tls=True)


def why_not(url: str, **more: Any) -> str:
    seen = look(Target("t", url, **more), [AskWorkers()], deadline=2)
    assert "wrong" not in repr(seen)
    assert isinstance(seen.snapshot.workers, Unseen)
    return seen.snapshot.workers.why


def test_a_password_that_is_rejected(
    start_redis: StartRedis, certificates: dict[str, str], tmp_path: Path
) -> None:
    """However the broker is reached: by TLS, a unix socket, sentinels, or as the next of a failover list."""
    path = tmp_path / "r.sock"
    plain = start_redis("--unixsocket", str(path), password="right")
    secure = ("--tls-cert-file", certificates["certificate"], "--tls-key-file", certificates["key"])
    tls = start_redis(*secure, "--tls-auth-clients", "no", password="right", tls=True)
    url = f"rediss://:wrong@127.0.0.1:{tls.port}/0"
    why = why_not(url, ssl={"ssl_ca_certs": certificates["ca"]})
    assert why == f"password rejected by rediss://:***@127.0.0.1:{tls.port}/0"
    assert why_not(f"redis+socket://:wrong@{path}") == f"password rejected by redis+socket://:***@{path}"
    gone, place = f"127.0.0.1:{free_port()}/0", f"127.0.0.1:{plain.port}/0"
    assert why_not(f"redis://:wrong@{gone};redis://:wrong@{place}") == (
        f"connection refused by redis://:***@{gone}; password rejected by redis://:***@{place}"
    )
    master = {"master_name": "main", "sentinel_kwargs": {"password": "right"}}
    with sentinel(tmp_path, plain, "requirepass right") as port:
        url = f"sentinel://:{{}}@127.0.0.1:{port}/0"
        rejected = f"password rejected by {url.format('***')}"
        assert why_not(url.format("wrong"), options=master) == rejected
        itself = {**master, "sentinel_kwargs": {"password": "wrong"}}
        assert why_not(url.format("right"), options=itself) == rejected


def test_certificates(tls_redis: Server, certificates: dict[str, str], start_worker: StartWorker) -> None:
    url = f"rediss://127.0.0.1:{tls_redis.port}/0"
    options = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_ca_certs": certificates["ca"],
        "ssl_certfile": certificates["certificate"],
        "ssl_keyfile": certificates["key"],
    }
    start_worker(url, broker_use_ssl={**options, "ssl_cert_reqs": int(ssl.CERT_REQUIRED)})
    wait_until(lambda: sees_worker(url, ssl=options))


def test_a_certificate_that_nobody_trusts(tls_redis: Server) -> None:
    required = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    why = why_not(f"rediss://127.0.0.1:{tls_redis.port}/0", ssl=required)
    assert why.startswith("certificate not trusted (")


def test_plain_against_tls(tls_redis: Server) -> None:
    assert "TLS" in why_not(f"redis://127.0.0.1:{tls_redis.port}/0")


@contextmanager
def sentinel(folder: Path, master: Server, *lines: str) -> Iterator[int]:
    """The port of a sentinel that knows one master, "main"."""
    port, conf = free_port(), folder / "sentinel.conf"
    monitor = f"sentinel monitor main 127.0.0.1 {master.port} 1"
    conf.write_text("\n".join([f"port {port}", "bind 127.0.0.1", monitor, *lines, ""]))
    process = subprocess.Popen(["redis-server", str(conf), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: accepts(port), what="the sentinel")
        yield port
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def sentinels(start_redis: StartRedis, tmp_path: Path) -> Iterator[str]:
    """The URL of two sentinels that know one master, "main"; the first of them is gone."""
    with sentinel(tmp_path, start_redis()) as port:
        yield f"sentinel://127.0.0.1:{free_port()}/0;sentinel://127.0.0.1:{port}/0"


def test_sentinels(sentinels: str, start_worker: StartWorker) -> None:
    options = {"master_name": "main"}
    # A worker tries the one that is gone again and again, for half a minute.
    start_worker(sentinels.split(";")[1], broker_transport_options=options)
    wait_until(lambda: sees_worker(sentinels, options=options))


def test_sentinels_that_know_no_such_master(sentinels: str) -> None:
    assert "no master 'other'" in why_not(sentinels, options={"master_name": "other"})


def test_fanout_of_two_generations_of_sentinels(sentinels: str, start_worker: StartWorker) -> None:
    options = {"master_name": "main", "sentinel_fanout_compat": True}
    # A worker tries the one that is gone again and again, for half a minute.
    start_worker(sentinels.split(";")[1], broker_transport_options=options)
    wait_until(lambda: sees_worker(sentinels, options=options))
    workers = look(Target("t", sentinels, options=options), [AskWorkers()], deadline=5).snapshot.workers
    assert isinstance(workers, Workers)
    assert workers.subscribed == 1
