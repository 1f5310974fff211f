"""An app that is loaded once and asked in forks, real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from pytest_celery_health.project.info import AppSpec, ProjectError
from pytest_celery_health.project.sessions import Session, Sessions
from pytest_celery_health.sandbox.brokerless import Brokerless
from pytest_celery_health.sandbox.spec import SandboxSpec

WORK = "pytest_celery_health.project.child.publisher:publisher"
APP = """
import os, subprocess, sys, threading
from celery import Celery

app = Celery("shop")
calls = []

def count():
    calls.append(1)
    return {1: None, 2: False, 3: ("", 503)}[len(calls)]

def hang():
    threading.Event().wait()

def wait_for_it():
    while not os.path.exists("go"):
        threading.Event().wait(0.01)

def leave():
    print("and these are its last words")
    os._exit(3)

def fail():
    raise ValueError("no\\nstock")

async def later():
    raise KeyError("order")

def look_in_a_grandchild():
    raise LookupError(subprocess.check_output(["ls", "/dev/fd"], close_fds=False, text=True))
"""

#: Has sessions open, one of them at it, until it is killed.
OWNER = """
import sys, threading
from pathlib import Path
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.project.sessions import Sessions
from pytest_celery_health.sandbox.brokerless import Brokerless
from pytest_celery_health.sandbox.spec import SandboxSpec

app = AppSpec("shop:app", Path(sys.argv[1]))
world = Brokerless(SandboxSpec(), app)
sessions = Sessions(app, sys.argv[2], timeout=20, sealed=world.seal, environ=world.environ)
forks = [sessions.open(function="shop:hang", then="") for _ in range(2)]
forks[0].begin("function", gives_up=100)
print(*(fork.pid for fork in forks), flush=True)
threading.Event().wait()
"""


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    (tmp_path / "shop.py").write_text(textwrap.dedent(APP))
    app = AppSpec("shop:app", tmp_path)
    world = Brokerless(SandboxSpec(), app)
    open_before = set(os.listdir("/dev/fd"))
    with Sessions(app, WORK, timeout=20, sealed=world.seal, environ=world.environ) as loaded:
        yield loaded
    assert set(os.listdir("/dev/fd")) <= open_before
    world.close()


def opened(sessions: Sessions, function: str) -> Session:
    return sessions.open(function=function, then="")


def test_each_session_begins_where_the_app_was_loaded(sessions: Sessions) -> None:
    assert sessions.told()["queues"] == ["celery"]
    with opened(sessions, "shop:count") as first, opened(sessions, "shop:count") as second:
        said = [each.ask("function", within=10, gives_up=10) for each in (first, first, first, second)]
        assert first.pid != second.pid
    told = [each and (each["ended"], each.get("error")) for each in said]
    assert told == [("returned", None), ("refused", "False"), ("refused", "HTTP 503"), ("returned", None)]


@pytest.mark.parametrize(
    ("function", "error"),
    [("shop:fail", "ValueError: no stock"), ("shop:later", "KeyError: 'order'")],
)
def test_what_it_raises(sessions: Sessions, function: str, error: str) -> None:
    said = opened(sessions, function).ask("function", within=10, gives_up=10)
    assert said is not None
    assert (said["ended"], said["error"]) == ("raised", error)
    line = 1 + APP[: APP.index("raise " + error.partition(":")[0])].count("\n")
    assert said["at"] == f"shop.py:{line}"


def test_what_hangs_is_given_up_and_located(sessions: Sessions) -> None:
    session = opened(sessions, "shop:hang")
    began = time.monotonic()
    assert session.ask("function", within=0.5, gives_up=0.3) is None
    assert time.monotonic() - began < 5
    assert session.where() == f"shop.py:{1 + APP[: APP.index('Event().wait()')].count(chr(10))} in hang"
    session.close()
    assert is_gone(session.pid)


def test_what_comes_back_late_is_heard(sessions: Sessions, tmp_path: Path) -> None:
    session = opened(sessions, "shop:wait_for_it")
    assert session.ask("function", within=0.2, gives_up=10) is None
    (tmp_path / "go").touch()
    said = session.answer(10)
    assert said is not None
    assert said["ended"] == "returned"


def test_what_ends_its_process(sessions: Sessions) -> None:
    session = opened(sessions, "shop:leave")
    with pytest.raises(ProjectError, match="its process ended"):
        session.ask("function", within=10, gives_up=10)
    with pytest.raises(ProjectError, match="its process ended"):
        session.ask("function", within=10, gives_up=10)


def test_a_number_that_may_be_another_processs_by_now_is_not_killed(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, done = opened(sessions, "shop:leave"), opened(sessions, "shop:later")
    with pytest.raises(ProjectError, match="its process ended"):
        gone.ask("function", within=10, gives_up=10)
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    gone.close()
    done.close()
    done.close()
    assert killed == [done.pid]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("shop:cuont", "loading shop:cuont failed: shop has no 'cuont'; did you mean 'count'?"),
        ("shop:calls", "loading shop:calls failed: shop:calls is a list, which nobody can call"),
        ("shop.no:place", "loading shop.no:place failed: ModuleNotFoundError: No module named 'shop.no'"),
    ],
)
def test_what_cannot_be_loaded(sessions: Sessions, function: str, message: str) -> None:
    with pytest.raises(ProjectError, match=message.replace("?", r"\?")):
        opened(sessions, function)


def test_several_threads_at_once(sessions: Sessions) -> None:
    def ends(_: int) -> str:
        with opened(sessions, "shop:count") as session:
            said = session.ask("function", within=10, gives_up=10)
            return str(said and said["ended"])

    with ThreadPoolExecutor(max_workers=8) as pool:
        assert [*pool.map(ends, range(16))] == ["returned"] * 16


def test_what_a_call_starts_inherits_nothing_of_ours(sessions: Sessions) -> None:
    said = opened(sessions, "shop:look_in_a_grandchild").ask("function", within=10, gives_up=10)
    assert said is not None
    assert said["error"] == "LookupError: 0 1 2 3"  # the last is the folder that was looked into


def test_who_waits_is_told_when_all_is_closed_by_another_thread(sessions: Sessions) -> None:
    session = opened(sessions, "shop:hang")
    session.begin("function", gives_up=100)
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(session.answer, 30)
        sessions.close()
        with pytest.raises(ProjectError, match="its process ended"):
            waits.result(5)
    with pytest.raises(ProjectError):
        opened(sessions, "shop:count")


def test_all_is_gone_at_the_end(sessions: Sessions) -> None:
    forks = [opened(sessions, "shop:hang") for _ in range(3)]
    forks[0].begin("function", gives_up=10)
    sessions.close()
    sessions.close()
    assert all(is_gone(fork.pid) for fork in forks)


def test_all_is_gone_when_its_owner_is_killed(sessions: Sessions, tmp_path: Path) -> None:
    del sessions  # it has made the project
    (tmp_path / "owner.py").write_text(OWNER)
    with TemporaryDirectory() as folder:  # a socket's path must be short
        with subprocess.Popen(
            [sys.executable, tmp_path / "owner.py", tmp_path, WORK],
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": folder},
        ) as owner:
            assert owner.stdout is not None
            forks = [int(pid) for pid in owner.stdout.readline().split()]
            loaded = [each.pid for each in psutil.Process(owner.pid).children()]
            assert os.listdir(folder)
            owner.kill()
        assert len(forks) == 2
        assert all(map(is_gone, [*loaded, *forks]))
        assert not os.listdir(folder)


def is_gone(pid: int) -> bool:
    """Whether a process ends soon; who forked it takes note later."""
    over = time.monotonic() + 5
    while time.monotonic() < over:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False
