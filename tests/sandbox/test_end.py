"""However a sandbox ends, nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from conftest import IMPOSSIBLE
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox, SandboxError, SandboxSpec
from pytest_celery_health.sandbox.client import Client
from tests.sandbox.remains import OWNER, Owner, Remains
from tests.support.timing import wait_until

pytestmark = pytest.mark.slow

#: Leaves the session, the process group and its parent.
DAEMON = """
import time
from celery.signals import worker_process_init

@app.task(name="tiny.daemon")
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path(os.environ["SCRATCH"], "pid.part").write_text(str(os.getpid()))
            os.rename(os.environ["SCRATCH"] + "/pid.part", os.environ["SCRATCH"] + "/pid")
            time.sleep(1000)
        os._exit(0)

app.conf.beat_schedule["daemon"] = {"task": "tiny.daemon", "schedule": 3600.0}
"""

STUBBORN = """
import signal, time
from celery.signals import worker_ready

@app.task(name="tiny.stubborn")
def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    touch("stubborn")
    time.sleep(1000)

@worker_ready.connect(weak=False)
def ignore(**_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

app.conf.beat_schedule["stubborn"] = {"task": "tiny.stubborn", "schedule": 3600.0}
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, None], ids=str)
def test_nothing_is_left_when_its_owner_ends(end: int | None, owner: Callable[..., Owner]) -> None:
    mine = owner(workers=2, beat=["heartbeat"])
    assert len(mine.remains.processes) >= 5
    assert mine.remains.ports
    mine.end(end)
    wait_until(lambda: not mine.remains.alive(), within=5)


def test_nothing_is_left_when_its_owners_whole_group_is_killed(owner: Callable[..., Owner]) -> None:
    mine = owner(workers=1)
    os.killpg(mine.process.pid, signal.SIGKILL)
    wait_until(lambda: not mine.remains.alive(), within=5)


def test_a_process_that_the_owner_forked_does_not_keep_it(project: Callable[..., AppSpec]) -> None:
    sandbox = Sandbox(SandboxSpec(workers=0), project())
    sandbox.start()
    remains = Remains.of(sandbox)
    forked = os.fork()
    if not forked:
        time.sleep(60)
        os._exit(0)
    try:
        sandbox.close()
        assert remains.alive() == []
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)


def test_a_fork_of_the_owner_does_not_end_it(project: Callable[..., AppSpec]) -> None:
    with Sandbox(SandboxSpec(workers=0), project()) as sandbox:
        remains = Remains.of(sandbox)
        forked = os.fork()
        if not forked:
            sandbox.close()
            os._exit(0)
        assert os.waitpid(forked, 0)[1] == 0
        assert sandbox.logs()
        assert remains.folder.exists()


def test_a_worker_that_ends_later_is_noted(project: Callable[..., AppSpec]) -> None:
    with Sandbox(SandboxSpec(), project()) as sandbox:
        assert sandbox.notes == ()
        worker, *_pool = [p for p in Remains.of(sandbox).processes if p.cmdline()[-1].endswith("w1.json")]
        worker.kill()
        wait_until(lambda: sandbox.notes)
    assert list(sandbox.notes) == ["worker w1 ended with SIGKILL after the sandbox had started"]


def test_nothing_is_left_when_the_start_fails(project: Callable[..., AppSpec], tmp_path: Path) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(SandboxError):
        Sandbox(SandboxSpec(workers=2), project("raise SystemExit(1)")).start()
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before


@pytest.mark.skipif(sys.platform != "linux", reason=f"{IMPOSSIBLE}only Linux finds orphans")
def test_a_daemon_that_a_task_forked_is_gone_too(project: Callable[..., AppSpec], scratch: Path) -> None:
    with Sandbox(SandboxSpec(beat=("daemon",)), project(DAEMON)) as sandbox:
        wait_until(lambda: (scratch / "pid").exists())
        daemon = psutil.Process(int((scratch / "pid").read_text()))
        assert daemon.is_running()
        remains = Remains.of(sandbox)
    assert not daemon.is_running()
    assert remains.alive() == []


def test_who_ignores_sigterm_is_killed(project: Callable[..., AppSpec], scratch: Path) -> None:
    with Sandbox(SandboxSpec(), project(STUBBORN)) as sandbox:
        from celery import Celery

        with Celery(broker=sandbox.target.url, set_as_current=False) as client:
            client.send_task("tiny.stubborn")
        wait_until(lambda: (scratch / "stubborn").exists())
        remains = Remains.of(sandbox)
        started = time.monotonic()
    assert time.monotonic() - started < 4
    assert remains.alive() == []


def test_no_temporary_file_is_left_of_who_is_killed(
    project: Callable[..., AppSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefork pool keeps shared memory in files, which only an orderly end removes."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with Sandbox(SandboxSpec(), project(STUBBORN)) as sandbox:
        assert sandbox.target.url
    assert os.listdir(temporary) == []


def test_a_frozen_worker_is_gone_too(project: Callable[..., AppSpec]) -> None:
    with Sandbox(SandboxSpec(), project()) as sandbox:
        remains = Remains.of(sandbox)
        worker, *_pool = [p for p in remains.processes if p.cmdline()[-1].endswith("w1.json")]
        worker.suspend()
    assert remains.alive() == []


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=str)
@pytest.mark.skipif(sys.platform != "linux", reason=f"{IMPOSSIBLE}only Linux ends children so")
def test_the_end_of_the_keeper_is_the_end_of_all(end: int, project: Callable[..., AppSpec]) -> None:
    sandbox = Sandbox(SandboxSpec(), project())
    sandbox.start()
    remains = Remains.of(sandbox)
    os.kill(remains.keeper, end)
    wait_until(lambda: set(remains.alive()) <= {f"folder {remains.folder}"})
    sandbox.close()
    assert remains.alive() == []
    sandbox.close()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
@pytest.mark.parametrize("after", [0.1, 0.3, 0.6])
def test_nothing_is_left_when_its_owner_ends_while_it_starts(
    end: int, after: float, project: Callable[..., AppSpec], tmp_path: Path
) -> None:
    place = Path("/tmp") / f"chs-{os.getpid()}-{tmp_path.name[-1]}"
    place.mkdir()
    app = project()
    asked = {
        "app": app.app,
        "root": str(app.root),
        "env": dict(app.env),
        "spec": {},
        "attach": "",
        "share": "",
    }
    env = {**os.environ, "TMPDIR": str(place)}
    command = [sys.executable, "-c", OWNER, json.dumps(asked)]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(after)
        process.send_signal(end)
    try:
        wait_until(lambda: not any(place.iterdir()), within=5)
        wait_until(lambda: not _of_place(place), within=5)
    finally:
        shutil.rmtree(place)


def _of_place(place: Path) -> list[int]:
    """Processes with this folder of temporary files, brokers among them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(place):
                found.append(process.pid)
    return found


def test_an_interrupted_request_is_not_taken_for_the_next() -> None:
    """Ctrl-C may come between a request to the keeper and its reply, or in the middle of the request."""
    client = Client.start()
    try:
        client._connection.sendall(b'{"do": "events", "since": 0, "request": 0}\n{"do": "spa')
        assert client.ask("others")["others"] == 0
        assert client.ask("get")["state"] is None
    finally:
        assert client.leave()


def test_the_keeper_is_heard_after_an_interruption_at_any_moment() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    client, before = Client.start(), signal.signal(signal.SIGALRM, interrupt)
    try:
        for tick in range(200):
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + tick * 0.00001)
                while True:
                    client.ask("events", since=0)
            assert client.ask("others")["others"] == 0
    finally:
        signal.signal(signal.SIGALRM, before)
        assert client.leave()
