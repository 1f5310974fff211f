"""What becomes of a worker's tasks when it is told to end, and is killed if it takes too long."""

from __future__ import annotations

import celery
import pytest

from pytest_celery_health.sandbox.drills.crew import Drill, DrillError, Drills
from pytest_celery_health.sandbox.drills.shutdown import Fates, Shutdown

CELERY = tuple(int(part) for part in celery.__version__.split(".")[:2])


def shutdown(found: Drill) -> Shutdown:
    assert found.shutdown is not None
    return found.shutdown


@pytest.mark.slow
def test_a_warm_shutdown_finishes_what_runs_and_gives_the_rest_back(tiny: Drills) -> None:
    found = tiny("warm_shutdown")
    seen = shutdown(found)
    assert (seen.killed, seen.exit_code) == (False, 0)
    assert seen.running == Fates(finished=1)
    assert seen.prefetched == Fates(requeued=3)
    assert seen.eta == Fates(requeued=1)
    assert [call.process for call in found.signals if call.signal == "worker_shutting_down"] == ["main"]
    found.expect_signal("worker_shutdown")


def test_what_outlasts_the_grace_is_lost(tiny: Drills) -> None:
    seen = shutdown(tiny("warm_shutdown", grace=0.3, runs_for=30))
    assert (seen.killed, seen.exit_code) == (True, -9)
    assert seen.running == Fates(lost=1)
    assert str(seen).startswith("killed after 0.")
    assert "running: 1 lost; prefetched: 3 requeued; held with an ETA: 1 requeued" in str(seen)


def test_with_acks_late_it_is_run_twice(tiny: Drills) -> None:
    seen = shutdown(tiny("warm_shutdown", task="tiny.late", grace=0.3, runs_for=30))
    assert seen.running == Fates(run_twice=1)


def test_a_killed_worker_finishes_nothing(tiny: Drills) -> None:
    found = tiny("worker_killed")
    seen = shutdown(found)
    assert (seen.killed, seen.exit_code, found.exit_code) == (False, -9, -9)
    assert seen.running == Fates(lost=1)
    assert not any(call.signal in ("task_failure", "worker_shutdown") for call in found.signals)


@pytest.mark.slow
def test_a_cold_shutdown_ends_what_runs(tiny: Drills) -> None:
    seen = shutdown(tiny("cold_shutdown", runs_for=30, grace=5))
    assert seen.running == Fates(lost=1)
    assert not seen.killed


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_end_too(tiny: Drills, pool: str) -> None:
    seen = shutdown(tiny("warm_shutdown", pool=pool))
    assert seen.running == Fates(finished=1)


@pytest.mark.slow
def test_a_soft_shutdown_lets_it_finish_for_a_while(tiny: Drills) -> None:
    if CELERY < (5, 5):
        with pytest.raises(DrillError, match=r"soft_shutdown: this is Celery .*; Celery 5\.5 is the first"):
            tiny("soft_shutdown")
        return
    assert shutdown(tiny("soft_shutdown")).running == Fates(finished=1)
