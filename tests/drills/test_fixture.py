"""The fixture `celery_drill` in a user's own test run."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from tests.drills.conftest import ALERTS, TINY
from tests.support.own_run import (
    MARKED,
    assert_nothing_is_left_after,
    prepare,
    run,
    run_live,
    seen_by_processes,
)

pytestmark = pytest.mark.slow

CONTRACT = '[tool.celery-health]\napp = "tiny:app"\n'
TEST = """
import os, pytest

@pytest.mark.parametrize("end", ["raises", "hard_time_limit", "worker_lost"])
def test_every_death_is_alerted(celery_drill, end):
    assert celery_drill(end).requests_to("hooks.slack.com")
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    prepare(monkeypatch)
    pytester.makepyprojecttoml(CONTRACT)
    pytester.makepyfile(tiny=TINY + ALERTS, test_it=TEST)
    return pytester


def test_it_works_in_an_ordinary_run(project: pytest.Pytester) -> None:
    run(project).assert_outcomes(passed=3)


def test_it_works_in_a_health_run(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=MARKED + TEST)
    found = run(project, "--celery-health")
    found.assert_outcomes(passed=3)


def test_a_death_that_nobody_hears_of_fails_the_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it='def test_it(celery_drill): celery_drill("unregistered").expect_request("hooks.slack.com")'
    )
    found = run(project)
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        ["FAILED*AssertionError: saw no request*; wanted a request to hooks.slack.com"]
    )


def test_each_process_of_xdist_has_workers_of_its_own(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import os, pytest
        from pathlib import Path

        @pytest.mark.parametrize("turn", range(4))
        def test_it(celery_drill, turn):
            worker = celery_drill("raises").expect_signal("task_received").pid
            Path(f"seen-{os.environ['PYTEST_XDIST_WORKER']}-{worker}").touch()
        """
    )
    seen = seen_by_processes(project)
    assert len({worker for _, worker in seen}) == len({process for process, _ in seen}) == len(seen)


def test_it_refuses_a_live_target(project: pytest.Pytester) -> None:
    found = run_live(project, CONTRACT, TEST)
    found.assert_outcomes(errors=3)
    found.stdout.fnmatch_lines(
        ["*celery_drill: a drill starts workers and sends to them; the target staging is only looked at"]
    )


def test_it_says_how_to_begin_without_a_contract(project: pytest.Pytester) -> None:
    (project.path / "pyproject.toml").unlink()
    found = run(project)
    found.assert_outcomes(errors=3)
    found.stdout.fnmatch_lines(
        ["*celery_drill: no contract says what the app is, so there is nothing to drill"]
    )
    found.stdout.fnmatch_lines(["*app = *"])


def test_an_app_that_does_not_load_is_told_with_its_log(project: pytest.Pytester) -> None:
    project.makepyfile(tiny="raise RuntimeError('no settings')")
    found = run(project, "-k", "raises")
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*SandboxError: worker w1: RuntimeError: no settings"])


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)],
    ids=lambda each: each.name,
)
def test_nothing_is_left_after(project: pytest.Pytester, number: signal.Signals) -> None:
    project.makepyfile(
        test_it="""
        import os
        from pathlib import Path

        def test_it(celery_drill):
            celery_drill("raises")
            part = Path("up.part")
            part.write_text(str(celery_drill("raises").expect_signal("task_received").pid))
            part.rename("up")
            celery_drill("raises", answers={"hooks.slack.com": "hangs"}, within=60)
        """
    )
    (project.path / "tiny.py").write_text(TINY + ALERTS + "\nBOUND = {}\n")

    def keeper_of(pid: str) -> tuple[psutil.Process, Path]:
        worker = psutil.Process(int(pid))
        folder = next(Path(arg).parent for arg in worker.cmdline() if arg.endswith("w1.json"))
        return psutil.Process(worker.ppid()), folder

    assert_nothing_is_left_after(number, project, keeper_of)
