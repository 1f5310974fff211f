"""A user's own test run with a fixture of ours, in processes of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from tests.support.timing import wait_until

MARKED = "import pytest\npytestmark = pytest.mark.celery_health\n"
_LIVE = '[tool.celery-health.target.staging]\nbroker = "redis://127.0.0.1:1/0"\nexpect_host = "127.0.0.1"\n'


def prepare(monkeypatch: pytest.MonkeyPatch, *unset: str) -> None:
    """Have runs be as a user's: under no CI, with these variables unset, on a wide terminal, without what
    else is installed."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("CI", "PYTEST_ADDOPTS", *unset):
        monkeypatch.delenv(name, raising=False)


def run(project: pytest.Pytester, *args: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", "celery_health", "-W", "error", *args, timeout=90)


def run_live(project: pytest.Pytester, contract: str, test: str) -> pytest.RunResult:
    """A health run of a live target, with a test that is marked for it."""
    project.makepyprojecttoml(contract + _LIVE)
    project.makepyfile(test_it=MARKED + test)
    return run(project, "--celery-health", "--celery-health-target=staging")


def seen_by_processes(project: pytest.Pytester) -> set[tuple[str, str]]:
    """Which process saw what, in a run by two, whose four tests leave files "seen-PROCESS-WHAT"."""
    run(project, "-p", "xdist", "-n", "2", "--dist", "load").assert_outcomes(passed=4)
    names = [path.name.split("-")[1:] for path in project.path.glob("seen-*")]
    return {(process, what) for process, what in names}


def assert_nothing_is_left_after(
    number: signal.Signals, project: pytest.Pytester, keeper_of: Callable[[str], tuple[psutil.Process, Path]]
) -> None:
    """Run, and send pytest a signal once the test has written the file "up": everything below the keeper and
    its folder must go, which `keeper_of` knows by the file's text."""
    command = [sys.executable, "-m", "pytest", "-p", "celery_health", "-q"]
    up = project.path / "up"
    with subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, text=True) as pytest_process:
        wait_until(up.exists, within=30)
        keeper, folder = keeper_of(up.read_text())
        everything = [keeper, *keeper.children(recursive=True)]
        assert len(everything) >= 3
        assert folder.exists()
        pytest_process.send_signal(number)
        pytest_process.communicate(timeout=60)
    _, alive = psutil.wait_procs(everything, timeout=20)
    assert not alive
    assert not folder.exists()
