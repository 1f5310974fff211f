"""The sandbox's beat: only the named entries, at once and then on time; nobody's lock, nobody's table."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox, SandboxError, SandboxSpec
from tests.support.timing import wait_until

PROJECTS = Path(__file__).parents[1] / "projects"


@pytest.mark.slow
def test_entries_are_sent_at_once_and_then_on_time(project: Callable[..., AppSpec], scratch: Path) -> None:
    app = project(
        """
        @app.task(name="tiny.count", bind=True)
        def count(self):
            with Path(os.environ["SCRATCH"], "counted").open("a") as file:
                file.write("+")

        @app.on_after_finalize.connect
        def entries(sender, **_):
            sender.add_periodic_task(0.2, count.s(), name="counting")
        """
    )
    with Sandbox(SandboxSpec(beat=("counting", "heartbeat")), app) as sandbox:
        assert sandbox.notes == ()
        assert (scratch / "heartbeat").exists()
        wait_until(lambda: len((scratch / "counted").read_text()) >= 3)
    assert not (scratch / "nightly").exists()


def test_an_unknown_entry_names_the_nearest(project: Callable[..., AppSpec]) -> None:
    with pytest.raises(SandboxError) as failed:
        Sandbox(SandboxSpec(beat=("heartbeet",), start_within=60), project()).start()
    assert str(failed.value).startswith(
        "beat: the app's schedule has no entry 'heartbeet'; did you mean 'heartbeat'?\n"
    )


@pytest.mark.slow
def test_a_first_run_that_fails_or_does_not_end_is_noted(project: Callable[..., AppSpec]) -> None:
    app = project(
        """
        import time

        @app.task(name="tiny.bad")
        def bad():
            raise ValueError("bad")

        @app.task(name="tiny.long")
        def long():
            time.sleep(60)

        for name in ("bad", "long"):
            app.conf.beat_schedule[name] = {"task": f"tiny.{name}", "schedule": 3600.0}
        """
    )
    with Sandbox(SandboxSpec(beat=("bad", "heartbeat", "long")), app) as sandbox:
        assert sandbox.notes == (
            "bad ended in FAILURE when it first ran",
            "no worker of the sandbox had run long within 5 s of beat's sending it",
        )


@pytest.mark.slow
def test_an_entry_that_cannot_be_sent_is_noted(project: Callable[..., AppSpec]) -> None:
    app = project("app.conf.beat_schedule['heartbeat']['args'] = [object()]")
    with Sandbox(SandboxSpec(beat=("heartbeat",)), app) as sandbox:
        (note,) = sandbox.notes
        assert note.startswith("beat could not send heartbeat: ")
        assert "object" in note


def test_beat_alone_sends(project: Callable[..., AppSpec]) -> None:
    with Sandbox(SandboxSpec(workers=0, beat=("heartbeat",)), project()) as sandbox:
        assert sandbox.notes == ()
        assert sandbox.target.app is not None
        assert sandbox.target.app.name == "tiny"


def test_redbeats_lock_is_not_touched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as production:
        host = "127.0.0.1:%d" % production.getsockname()[1]  # noqa: UP031
        app = AppSpec("shop.celery:app", PROJECTS / "redbeat", env={"DECOY_REDIS": f"redis://{host}/1"})
        with Sandbox(SandboxSpec(beat=("heartbeat",)), app) as sandbox:
            assert sandbox.notes == ()
            assert sandbox.refusals() == []
            assert "redbeat" not in json.dumps(sandbox.logs(1000))
        production.settimeout(0)
        with pytest.raises(BlockingIOError):
            production.accept()


def test_an_app_that_imports_redbeat_has_an_untroubled_beat(project: Callable[..., AppSpec]) -> None:
    app = project("import redbeat.schedulers\napp.conf.beat_scheduler = 'redbeat.RedBeatScheduler'")
    with Sandbox(SandboxSpec(beat=("heartbeat",)), app) as sandbox:
        assert "raised" not in sandbox.logs(1000)["beat"]
        assert sandbox.notes == ()


@pytest.mark.slow
def test_djangos_table_is_not_touched(tmp_path: Path) -> None:
    database = tmp_path / "production.sqlite3"
    root = PROJECTS / "django_celery_beat"
    env = {"DJANGO_SETTINGS_MODULE": "mysite.settings", "DECOY_SQLITE": str(database)}
    with sqlite3.connect(database) as connection:
        connection.execute("create table canary (x)")
    connection.close()
    before = (database.read_bytes(), os.stat(database).st_mtime_ns)
    with Sandbox(SandboxSpec(beat=("heartbeat",)), AppSpec("mysite.celery:app", root, env=env)) as sandbox:
        assert sandbox.notes == ()
        assert "Traceback" not in json.dumps(sandbox.logs(1000))
    assert (database.read_bytes(), os.stat(database).st_mtime_ns) == before
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [database.name]
