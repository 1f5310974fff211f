"""Each broker by its name: a real one, a worker that runs tasks, a beat that sends, and nothing left."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from conftest import IMPOSSIBLE
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox, SandboxError, SandboxSpec, brokers
from pytest_celery_health.sandbox.brokers import redis_server
from tests.sandbox.remains import Remains
from tests.support.timing import wait_until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("valkey", "valkey "),
        ("redis-server", "redis "),
        ("rabbitmq-server", "rabbitmq "),
        ("fakeredis", "fakeredis "),
    ],
)
def test_a_worker_runs_what_beat_and_others_send(
    name: str, version: str, project: Callable[..., AppSpec], scratch: Path
) -> None:
    try:
        brokers.choose(name)
    except brokers.UnavailableError as error:
        pytest.skip(f"{IMPOSSIBLE}{error}")
    with Sandbox(SandboxSpec(broker=name, beat=("heartbeat",), start_within=60), project()) as sandbox:
        assert sandbox.broker.startswith(version)
        assert sandbox.notes == ()
        assert (scratch / "heartbeat").exists()
        remains = Remains.of(sandbox)
        with Celery(broker=sandbox.target.url, set_as_current=False) as client:
            client.send_task("tiny.pay", queue="payments")
        wait_until(lambda: (scratch / "paid").exists())
        assert not (scratch / "nightly").exists()
    assert remains.alive() == []


def test_the_best_broker_at_hand_is_taken_when_none_is_named(project: Callable[..., AppSpec]) -> None:
    best, _ = brokers.choose("")
    with Sandbox(SandboxSpec(workers=0), project()) as sandbox:
        assert sandbox.broker.split()[0] == best.removesuffix("-server")


def test_memory_is_for_one_process(project: Callable[..., AppSpec]) -> None:
    with pytest.raises(SandboxError, match=r"^memory:// lives in one process.*set workers = 0 and no beat$"):
        Sandbox(SandboxSpec(broker="memory"), project()).start()
    with Sandbox(SandboxSpec(broker="memory", workers=0), project()) as sandbox:
        assert sandbox.target.url == "memory://"
        assert sandbox.target.app is not None
        assert sandbox.target.app.tasks == {"tiny.touch", "tiny.pay"}


def test_an_unknown_broker_names_those_there_are(project: Callable[..., AppSpec]) -> None:
    with pytest.raises(SandboxError, match=r"^'kafka' is no broker of the sandbox; there are valkey, "):
        Sandbox(SandboxSpec(broker="kafka"), project()).start()


def test_a_port_that_was_taken_meanwhile_is_given_up_for_another(
    project: Callable[..., AppSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = iter([other.getsockname()[1], brokers.free_port()])
        monkeypatch.setattr(redis_server, "free_port", lambda: next(ports))
        with Sandbox(SandboxSpec(beat=("heartbeat",)), project()) as sandbox:
            assert f":{other.getsockname()[1]}/" not in sandbox.target.url
            assert sandbox.notes == ()


def test_a_broker_that_does_not_start_is_told_of_at_once_with_its_log(
    project: Callable[..., AppSpec], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho illegal instruction\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SandboxError) as failed:
        Sandbox(SandboxSpec(broker="redis-server", start_within=60), project()).start()
    assert str(failed.value) == (
        "redis-server ended with exit code 3: illegal instruction\n"
        "last lines of broker's log:\nillegal instruction"
    )


def test_no_password_shows(project: Callable[..., AppSpec]) -> None:
    with Sandbox(SandboxSpec(), project()) as sandbox:
        password = sandbox.target.url.partition("://:")[2].partition("@")[0]
        assert len(password) == 32
        remains = Remains.of(sandbox)
        for process in remains.processes:
            assert password not in " ".join(process.cmdline())
        assert password not in repr(sandbox) + repr(sandbox.target) + repr(sandbox.logs(1000))
        for file in remains.folder.rglob("*"):
            assert not file.is_file() or not file.stat().st_mode & 0o077 or password not in file.read_text()
        assert remains.folder.stat().st_mode & 0o077 == 0
