"""What leaves a worker at the ends of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from pytest_celery_health import AlertsReach, AskDrills, Ending, Output, Snapshot, judge
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.drills import coverage
from pytest_celery_health.sandbox.drills.coverage import drilled
from pytest_celery_health.sandbox.drills.crew import Drills
from pytest_celery_health.sandbox.spec import SandboxSpec

SLACK = "hooks.slack.com"
COUNTS = """
import logging
from celery import signals
from prometheus_client import Counter

FAILED = Counter("tasks_failed", "Failures.", ["task"])
logging.getLogger("shop.quiet").setLevel("CRITICAL")

@signals.task_failure.connect(weak=False)
def count(sender, **_):
    FAILED.labels(sender.name).inc()
    logging.getLogger("shop.alerts").error("%s failed", sender.name)
    logging.getLogger("shop.alerts").info("and nobody is told of this")
    logging.getLogger("shop.quiet").error("nor of this")
"""


def outputs(ending: Ending) -> dict[tuple[str, str], Output]:
    return {(output.kind, output.name): output for output in ending.outputs}


def test_requests_of_main_process_and_child(alerting: Drills) -> None:
    found = drilled(alerting, AskDrills(("raises", "worker_lost", "unregistered", "success")))
    assert [ending.end for ending in found.seen] == ["raises", "worker_lost", "unregistered", "success"]
    posts = [outputs(ending).get(("request", SLACK)) for ending in found.seen]
    assert posts == [Output("request", SLACK), Output("request", SLACK), None, None]
    assert outputs(found.seen[2])["log", "celery.worker.consumer.consumer"].count == 1


def test_records_and_metrics(drills: Callable[..., Drills]) -> None:
    (ending,) = drilled(drills(COUNTS), AskDrills(("raises",), task="tiny.pay")).seen
    told = outputs(ending)
    assert told["metric", "tasks_failed_total"].count == 1
    assert told["log", "shop.alerts"].count == 1
    assert ("log", "shop.quiet") not in told


def test_a_request_that_nobody_answers_is_lost(drills: Callable[..., Drills]) -> None:
    app = """
    import socket
    from celery import signals

    @signals.task_failure.connect(weak=False)
    def tell(**_):
        socket.create_connection(("10.1.2.3", 25))
    """
    (ending,) = drilled(drills(app), AskDrills(("raises",))).seen
    assert not [output for output in ending.outputs if output.kind == "request"]
    assert ending.errors[0].startswith("tiny:tell on task_failure raised ")


def test_an_end_that_cannot_be(tiny: Drills) -> None:
    found = drilled(tiny, AskDrills(("soft_time_limit", "raises"), pool="threads"))
    assert found.seen[0].impossible.startswith("soft_time_limit is not possible with the pool threads")
    assert not found.seen[1].impossible
    verdict = judge(
        AlertsReach({"log": ("raises",)}, pool="threads", ends=("soft_time_limit",)), Snapshot(found)
    )
    assert verdict.healthy
    assert verdict.table[1][:2] == ("soft_time_limit", "n/a")


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("tests.drills.test_coverage:NOT_THERE", "tests.drills.test_coverage has no 'NOT_THERE'"),
        ("no_such_module:END", "No module named 'no_such_module'"),
        ("celery:Celery", "celery:Celery is no End of a drill"),
    ],
)
def test_an_end_of_the_projects_own_that_is_none(tiny: Drills, end: str, why: str) -> None:
    (ending,) = drilled(tiny, AskDrills((end,))).seen
    assert why in ending.unseen


def test_a_task_that_the_app_lacks(tiny: Drills) -> None:
    (ending,) = drilled(tiny, AskDrills(("raises",), task="tiny.pai")).seen
    assert ending.unseen == "raises: the app has no task 'tiny.pai'; did you mean 'tiny.pay'?"


@pytest.mark.slow
def test_a_handler_that_hangs_is_named(
    drills: Callable[..., Drills], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage, "WITHIN", 1.0)
    app = """
    import threading
    from celery import signals

    @signals.task_failure.connect(weak=False)
    def hang(**_):
        threading.Event().wait()
    """
    (ending,) = drilled(drills(app), AskDrills(("raises",))).seen
    assert ending.errors == ("tiny:hang on task_failure did not come back within 1 s",)


@pytest.fixture
def own(tmp_path, request: pytest.FixtureRequest) -> Iterator[Drills]:
    """Drills whose app is the test's parameter."""
    (tmp_path / "own.py").write_text(request.param)
    with closing(Drills(SandboxSpec(start_within=10), AppSpec("own:app", tmp_path))) as crew:
        yield crew


@pytest.mark.slow
@pytest.mark.parametrize("own", ["from celery import Celery\napp = Celery('own')\n"], indirect=True)
def test_what_ends_workers_is_played_by_crews_of_their_own_that_go(own: Drills) -> None:
    before = len(psutil.Process().children(recursive=True))
    found = drilled(own, AskDrills(("raises", "memory_error", "worker_killed", "worker_starts")))
    assert [ending.unseen for ending in found.seen] == [""] * 4
    assert len(found.seen) == 4
    own.close()
    assert len(psutil.Process().children(recursive=True)) == before


@pytest.mark.parametrize("own", ["raise RuntimeError('no settings')\n"], indirect=True)
def test_an_app_that_does_not_load(own: Drills) -> None:
    with pytest.raises(SandboxError, match="RuntimeError: no settings"):
        drilled(own, AskDrills(("worker_killed",)))
    with pytest.raises(SandboxError, match="RuntimeError: no settings"):
        drilled(own, AskDrills(("raises",)))
