"""A small project to put into a sandbox, and processes that own one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_celery_health.project.info import AppSpec
from tests.sandbox.remains import APP, OWNER, Owner, Remains


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where the project's tasks write."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def project(tmp_path: Path, scratch: Path) -> Callable[..., AppSpec]:
    """The project: APP, and `more` code behind it."""

    def write(more: str = "") -> AppSpec:
        root = tmp_path / "project"
        root.mkdir(exist_ok=True)
        (root / "tiny.py").write_text(APP + textwrap.dedent(more))
        return AppSpec("tiny:app", root, env={"SCRATCH": str(scratch)})

    return write


@pytest.fixture
def owner(project: Callable[..., AppSpec]) -> Iterator[Callable[..., Owner]]:
    """Start a process with a sandbox of the project, in a session of its own."""
    with contextlib.ExitStack() as stack:

        def start(
            app: AppSpec | None = None, share: Path | None = None, attach: Path | None = None, **spec: object
        ) -> Owner:
            app = app or project()
            asked = {
                "app": app.app,
                "root": str(app.root),
                "env": dict(app.env),
                "spec": spec,
                "share": share and str(share),
                "attach": attach and str(attach),
            }
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-W", "error", "-c", OWNER, json.dumps(asked)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            return Owner(process, Remains(said["keeper"], Path(said["folder"])))

        yield start
