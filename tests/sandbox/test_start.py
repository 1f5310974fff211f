"""What a started sandbox is, and what is said when one does not start."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from celery import Celery

from pytest_celery_health.facts import AskWorkers, Workers
from pytest_celery_health.observe.look import look
from pytest_celery_health.project.describe import call
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox, SandboxError, SandboxSpec, keeper
from tests.support.timing import as_far_as


def test_workers_answer_and_consume_every_queue_of_the_app(project: Callable[..., AppSpec]) -> None:
    with Sandbox(SandboxSpec(workers=2), project()) as sandbox:
        target = sandbox.target
        assert target.name == "sandbox"
        assert target.sealed
        assert target.app is not None
        assert target.app.queues == ("celery", "payments")
        assert target.app.broker_url == target.url
        with Celery(broker=target.url, set_as_current=False) as client:
            client.conf.broker_transport_options = target.options
            replies = client.control.broadcast("active_queues", reply=True, limit=2, timeout=10)
    answered = {name: queues for reply in replies for name, queues in reply.items()}
    assert sorted(answered) == ["w1@sandbox", "w2@sandbox"]
    for queues in answered.values():
        assert {queue["name"] for queue in queues} == {"celery", "payments"}


def test_queues_pool_and_concurrency_can_be_said(project: Callable[..., AppSpec]) -> None:
    spec = SandboxSpec(queues=("payments",), pool="threads", concurrency=3)
    with (
        Sandbox(spec, project()) as sandbox,
        Celery(broker=sandbox.target.url, set_as_current=False) as client,
    ):
        (stats,) = client.control.broadcast("stats", reply=True, limit=1, timeout=10)
        (queues,) = client.control.broadcast("active_queues", reply=True, limit=1, timeout=10)
    assert [queue["name"] for queue in next(iter(queues.values()))] == ["payments"]
    pool = next(iter(stats.values()))["pool"]
    assert pool["max-concurrency"] == 3
    assert "thread" in pool["implementation"]


def test_a_function_of_the_project_sees_the_same_world(project: Callable[..., AppSpec]) -> None:
    app = project(
        """
        def world():
            return [app.conf.broker_url, os.environ["CACHE_URL"], os.environ["SCRATCH"]]
        """
    )
    app = replace(app, env={**app.env, "CACHE_URL": "redis://production.example/7"})
    spec = SandboxSpec(workers=0, redirect_env=("CACHE_URL",))
    with Sandbox(spec, app) as sandbox:
        target = sandbox.target
        assert target.spec is not None
        seen = call(target.spec, "tiny:world", timeout=20, environ=sandbox.environ)
        assert seen == [target.url, target.url, app.env["SCRATCH"]]


@pytest.mark.slow
def test_refused_connections_are_named(project: Callable[..., AppSpec]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as production:
        address = "127.0.0.1:%d" % production.getsockname()[1]  # noqa: UP031
        app = project(
            f"""
            import socket
            try:
                socket.create_connection(("127.0.0.1", {production.getsockname()[1]}))
            except OSError:
                pass
            """
        )
        sandbox = Sandbox(SandboxSpec(), app)
        with sandbox:
            assert {(refusal.address, refusal.role) for refusal in sandbox.refusals()} == {(address, "w1")}
        assert sandbox.refusals()
        production.settimeout(0)
        with pytest.raises(BlockingIOError):
            production.accept()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import not_there", "worker w1: ModuleNotFoundError: No module named 'not_there'\n"),
        ("raise SystemExit('no licence')", "worker w1: SystemExit: no licence\n"),
        (
            """
            from celery.signals import worker_init

            @worker_init.connect(weak=False)
            def die(**_):
                print("no licence", flush=True)
                os._exit(7)
            """,
            "worker w1 ended with exit code 7 while it started: no licence\n",
        ),
        ("os.kill(os.getpid(), 9)", "worker w1 ended with SIGKILL while it started"),
        ("app = 1", "worker w1: tiny:app is an int, not a Celery app"),
    ],
    ids=["import", "exit", "worker_init", "killed", "no app"],
)
def test_a_worker_that_ends_is_told_of_at_once_with_its_log(
    code: str, message: str, project: Callable[..., AppSpec]
) -> None:
    started = time.monotonic()
    with pytest.raises(SandboxError) as failed:
        Sandbox(SandboxSpec(start_within=60), project(code)).start()
    assert time.monotonic() - started < 20
    assert str(failed.value).startswith(message)
    if code == "app = 1":  # there is no more in its log
        assert str(failed.value) == message
    if "licence" in code:
        assert "last lines of w1's log:\n" in str(failed.value)
        assert str(failed.value).partition("log:\n")[2].count("no licence") == (2 if "raise" in code else 1)


@pytest.mark.slow
def test_workers_that_speak_pickle_answer_in_json(project: Callable[..., AppSpec]) -> None:
    """Celery answers in the tasks' serializer; a look unpickles nothing."""
    speaks = "app.conf.update(task_serializer='pickle', accept_content=['pickle', 'json'])"
    with Sandbox(SandboxSpec(), project(speaks)) as sandbox:
        workers = look(sandbox.target, [AskWorkers()], deadline=10).snapshot.workers
    assert isinstance(workers, Workers)
    assert [(worker.name, worker.malformed) for worker in workers.answered] == [("w1@sandbox", ())]


def test_a_worker_that_hangs_is_told_of_in_time(project: Callable[..., AppSpec], scratch: Path) -> None:
    app = project(
        """
        print('waiting for the vault', flush=True)
        Path(os.environ["SCRATCH"], "hangs").touch()
        import time
        time.sleep(1000)
        """
    )

    def start(within: float) -> str:
        with pytest.raises(SandboxError) as failed:
            Sandbox(SandboxSpec(start_within=within), app).start()
        return str(failed.value)

    within, said = as_far_as(scratch / "hangs", start, 1.5, 6, 24)
    assert said.startswith(f"worker w1 did not answer within {within:g} s\nlast lines of w1's log:\n")
    assert said.endswith("waiting for the vault")


def test_a_mistaken_allow_is_told(project: Callable[..., AppSpec]) -> None:
    with pytest.raises(SandboxError, match=r"^allow: 'db' is not an endpoint; write host:port"):
        Sandbox(SandboxSpec(allow=("db",)), project()).start()


def test_an_app_that_switched_remote_control_off_starts(project: Callable[..., AppSpec]) -> None:
    with Sandbox(SandboxSpec(), project("app.conf.worker_enable_remote_control = False")):
        pass


@pytest.mark.slow
def test_the_worker_does_not_touch_the_state_file_of_the_app(
    project: Callable[..., AppSpec], scratch: Path
) -> None:
    with Sandbox(SandboxSpec(), project("app.conf.worker_state_db = os.environ['SCRATCH'] + '/state'")):
        pass
    assert list(scratch.iterdir()) == []


def test_tasks_run_in_a_worker_whatever_the_settings_for_unit_tests_say(
    project: Callable[..., AppSpec],
) -> None:
    with Sandbox(SandboxSpec(beat=("heartbeat",)), project("app.conf.task_always_eager = True")) as sandbox:
        assert sandbox.notes == ()
        assert "succeeded" in sandbox.logs()["w1"]


def test_a_long_path_of_temporary_files_is_no_trouble(
    project: Callable[..., AppSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    with Sandbox(SandboxSpec(workers=0), project()) as sandbox:
        assert sandbox.logs().keys() == {"broker"}


def test_a_keeper_that_cannot_start_says_why(
    project: Callable[..., AppSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "keeper.py"
    broken.write_text("raise MemoryError('too many processes')")
    monkeypatch.setattr(keeper, "__file__", str(broken))
    words = r"^the sandbox's keeper did not start: MemoryError: too many processes$"
    with pytest.raises(SandboxError, match=words):
        Sandbox(SandboxSpec(), project()).start()


def test_not_running_is_said() -> None:
    sandbox = Sandbox(SandboxSpec(), AppSpec("tiny:app", Path()))
    for ask in (lambda: sandbox.target, sandbox.logs):
        with pytest.raises(SandboxError, match=r"^the sandbox is not running$"):
            ask()
    sandbox.close()
    assert sandbox.refusals() == []


UNCHANGED = """
import os, signal, sys, threading
from pathlib import Path
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox, SandboxSpec

def world():
    return {
        "environ": dict(os.environ),
        "path": list(sys.path),
        "folder": os.getcwd(),
        "files": sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else [],
        "threads": [thread.name for thread in threading.enumerate()],
        "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "celery": [name for name in ("celery", "kombu", "redis", "valkey", "tiny") if name in sys.modules],
    }

app = AppSpec("tiny:app", Path(sys.argv[1]), env={"SCRATCH": sys.argv[2]})
before = world()
for broker in ("", "memory"):
    with Sandbox(SandboxSpec(broker=broker, workers=not broker), app):
        running = world()
    after = world()
    running["files"] = before["files"]
    assert running == before, (before, running)
    assert after == before, (before, after)
assert not before["celery"]
"""


def test_nothing_of_the_process_that_starts_it_is_changed(
    project: Callable[..., AppSpec], scratch: Path
) -> None:
    app = project()
    command = [sys.executable, "-W", "error", "-c", UNCHANGED, str(app.root), str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
