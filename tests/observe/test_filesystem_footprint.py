"""What a look leaves in the folders of a `filesystem://` broker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu import Connection

from pytest_celery_health.facts import AskWorkers, Workers
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.target import Target
from tests.observe.fleet import StartWorker
from tests.support.timing import wait_until

pytestmark = pytest.mark.slow

QUICK = {"polling_interval": 0.02}
CLOCKS = AskWorkers(frozenset({"clock"}), at_least=1)
REPLIES = "reply.celery.pidbox.exchange"


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Those of a broker in a folder of the test's own."""
    data = tmp_path / "broker" / "data"
    data.mkdir(parents=True)
    control = str(data.parent / "control")
    return {"data_folder_in": str(data), "data_folder_out": str(data), "control_folder": control, **QUICK}


@pytest.fixture
def broker(options: dict[str, Any]) -> Path:
    return Path(options["control_folder"]).parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test's process, to which kombu's own folders are relative."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def state(folder: Path) -> dict[str, str]:
    """Everything in it with its content."""
    found = {path: path.read_text() if path.is_file() else "" for path in folder.rglob("*")}
    return {str(path.relative_to(folder)): text for path, text in found.items()}


def answered(target: Target, ask: AskWorkers = CLOCKS) -> bool:
    workers = look(target, [ask], deadline=5).snapshot.workers
    return isinstance(workers, Workers) and bool(workers.answered)


def leave_mailbox(options: dict[str, Any]) -> None:
    """What a worker that was killed has left: a mailbox that nobody reads."""
    with Connection("filesystem://", transport_options=options) as connection:
        app = Celery(set_as_current=False)
        # kombu does not bind twice in one process what has one name.
        app.control.mailbox(connection).Node(f"{uuid4().hex}@x", channel=connection.channel()).listen()
        app.close()


def test_its_folders_are_as_they_were(
    options: dict[str, Any], broker: Path, start_worker: StartWorker
) -> None:
    """Neither a table of an exchange nor a message is left, whatever was asked."""
    start_worker("filesystem://", broker_transport_options=options)
    before = state(broker)
    target = Target("t", "filesystem://", options=options)
    wait_until(lambda: answered(target))
    assert state(broker) == before


def test_the_working_directory_is_as_it_was(here: Path) -> None:
    """Where no option says so, kombu's folders are those of the process, and a look makes none."""
    for name in ("data_in", "data_out"):
        (here / name).mkdir()
    before = state(here)
    seen = look(Target("t", "filesystem://"), [CLOCKS], deadline=5).snapshot.workers
    assert isinstance(seen, Workers)
    assert state(here) == before


def test_what_somebody_else_left_stays(options: dict[str, Any], broker: Path) -> None:
    """A table that `celery inspect` made is not a look's, though it is empty."""
    control = broker / "control"
    control.mkdir()
    (control / REPLIES).write_text("[]")
    (control / "celery.pidbox.exchange").write_text('[["", "", "gone@x.celery.pidbox"]]')
    before = state(broker)
    look(Target("t", "filesystem://", options=options), [CLOCKS], deadline=5)
    assert state(broker) == before


def test_the_requests_to_a_worker_that_is_gone_go_with_the_look(
    options: dict[str, Any], broker: Path
) -> None:
    """Its mailbox outlives it, and would grow by a few files a look."""
    leave_mailbox(options)
    before = state(broker)
    assert "control/celery.pidbox.exchange" in before
    look(Target("t", "filesystem://", options=options), [CLOCKS], deadline=5)
    assert state(broker) == before


def test_replies_are_not_kept_where_the_app_keeps_what_it_processed(
    options: dict[str, Any], broker: Path, start_worker: StartWorker
) -> None:
    """`store_processed` is for the app's messages."""
    start_worker("filesystem://", broker_transport_options=options)
    kept = broker / "processed"
    kept.mkdir()
    target = Target(
        "t", "filesystem://", options={**options, "store_processed": True, "processed_folder": str(kept)}
    )
    wait_until(lambda: answered(target))
    assert not list(kept.iterdir())


def test_a_deadline_leaves_nothing_and_neither_does_the_late_reply(
    options: dict[str, Any], broker: Path, start_worker: StartWorker
) -> None:
    worker = start_worker("filesystem://", broker_transport_options=options)
    before = state(broker)
    worker.freeze()
    target = Target("t", "filesystem://", options={**options, "polling_interval": 1.0})
    look(target, [CLOCKS], deadline=0.5)
    wait_until(lambda: state(broker) == before, within=0.5, what="a tidy folder")
    worker.thaw()
    wait_until(lambda: answered(target))
    assert state(broker) == before


LOOKER = """
import ast, sys
from pytest_celery_health.facts import AskWorkers
from pytest_celery_health.observe import remote_control
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.target import Target
remote_control.PATIENCE = 30
look(Target("t", "filesystem://", options=ast.literal_eval(sys.argv[1])), [AskWorkers()], deadline=60)
"""


@pytest.fixture
def looking(options: dict[str, Any], broker: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a process that is in mid-look: the one mailbox is nobody's. Returns it when it has asked."""
    leave_mailbox(options)
    processes = []

    def start() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(
            [sys.executable, "-c", LOOKER, repr(options)], env=environment, stderr=subprocess.DEVNULL
        )
        processes.append(process)
        wait_until(lambda: any((broker / "data").iterdir()), what="a look under way")
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait(5)


def test_control_c_leaves_nothing(looking: Callable[[], subprocess.Popen[bytes]], broker: Path) -> None:
    before = state(broker)
    process = looking()
    process.send_signal(signal.SIGINT)
    assert process.wait(5) != 0
    assert state(broker) == before


def test_what_a_kill_leaves_is_swept_by_a_later_look(
    looking: Callable[[], subprocess.Popen[bytes]], options: dict[str, Any], broker: Path
) -> None:
    """The binding, the request, and a reply that came after the kill."""
    before = state(broker)
    process = looking()
    process.kill()
    process.wait(5)
    target = Target("t", "filesystem://", options=options)
    left = state(broker)
    assert set(left) - set(before) > {f"control/{REPLIES}"}
    assert look(target, [AskWorkers()], deadline=1).swept == 0, "it may still be under way"
    assert state(broker) == left
    # Now make it an hour old, with a reply that came late.
    for path in broker.rglob("*"):
        if path.is_file():
            old = f"celery-health.{int(time.time()) - 3600}."
            path.write_text(re.sub(r"celery-health\.\d+\.", old, path.read_text()))
    ((_, _, queue),) = json.loads((broker / "control" / REPLIES).read_text())
    (broker / "data" / f"1_2.{queue}.msg").write_text("{}")
    assert look(target, [AskWorkers()], deadline=1).swept == 1
    assert state(broker) == before
