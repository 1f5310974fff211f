"""What Celery really sends at each end, by pool: the table of docs/drills.md, on the installed Celery."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import celery
import pytest

from pytest_celery_health.record.recording import SignalCall
from pytest_celery_health.sandbox.drills.crew import Drill, DrillError, Drills
from pytest_celery_health.sandbox.drills.ends import ENDS, POOLS, End


def told(calls: tuple[SignalCall, ...]) -> dict[str, list[str]]:
    """The signals about tasks as the catalogue spells them."""
    return by_thread(
        f"{call.signal.removeprefix('task_').replace('_task_', '_')} {call.process[0]}"
        + (f" {call.arguments['state']}" if call.signal == "task_postrun" else "")
        for call in calls
        if re.match(r"task_|(before|after)_task", call.signal)
    )


def expected(text: str) -> dict[str, list[str]]:
    """The catalogue's text, with (...) x 3 written out."""
    text = re.sub(r"\(([^)]*)\) x (\d)", lambda found: ", ".join([found[1]] * int(found[2])), text)
    return by_thread(filter(None, text.split(", ")))


def by_thread(lines: Iterable[str]) -> dict[str, list[str]]:
    """In order: between processes, or a worker's loop and the threads of its pool, there is none."""
    found: dict[str, list[str]] = {"loop": [], "main": [], "child": []}
    for line in lines:
        name, process, *_ = line.split()
        found["loop" if name == "received" else "main" if process == "m" else "child"].append(line)
    return found


def is_received(found: Drill) -> bool:
    return any(call.signal == "task_received" for call in found.signals)


IMPOSSIBLE = [(pool, end.name) for end in ENDS.values() for pool in end.impossible]
POSSIBLE = [
    pytest.param(pool, end.name, marks=[] if pool == "prefork" else pytest.mark.slow)
    for pool in POOLS
    for end in ENDS.values()
    if end.signals_of(pool, celery.__version__)
]


@pytest.mark.parametrize(("pool", "name"), POSSIBLE)
def test_an_end_sends_what_the_catalogue_says(tiny: Drills, pool: str, name: str) -> None:
    found = tiny(name, pool=pool)
    text = ENDS[name].signals_of(pool, celery.__version__)
    if is_received(found):
        text = f"received m, {text}"
    assert told(found.signals) == expected(text)
    assert not found.still_running
    assert (found.exit_code is not None) == (pool in ENDS[name].breaks)


@pytest.mark.parametrize("pool", POOLS)
def test_a_body_that_cannot_be_decoded_sends_no_signal_at_all(tiny: Drills, pool: str) -> None:
    found = tiny("undecodable_body", pool=pool)
    assert told(found.signals) == expected("")
    found.expect_log(level="critical", containing="Can't decode message body")


@pytest.mark.parametrize(("pool", "name"), IMPOSSIBLE)
def test_what_a_pool_cannot_do_is_refused_with_the_reason(tiny: Drills, pool: str, name: str) -> None:
    with pytest.raises(DrillError) as refused:
        tiny(name, pool=pool)
    assert str(refused.value) == f"{name} is not possible with the pool {pool}: {ENDS[name].impossible[pool]}"


def test_a_drill_takes_under_two_seconds_once_its_worker_is_up(tiny: Drills) -> None:
    tiny("success")
    for name in ("raises", "worker_lost", "hard_time_limit", "retries_exhausted", "unregistered"):
        began = time.monotonic()
        tiny(name)
        assert time.monotonic() - began < 2.0, name


def test_the_recording_tells_main_process_and_child_apart(tiny: Drills) -> None:
    found = tiny("worker_lost")
    failure, prerun = found.expect_signal("task_failure"), found.expect_signal("task_prerun")
    assert (failure.process, prerun.process) == ("main", "child")
    assert failure.pid != prerun.pid
    assert "WorkerLostError" in failure.arguments["exception"]
    assert (found.end, found.pool, found.task, found.runs) == (
        "worker_lost",
        "prefork",
        "celery_health.drill",
        1,
    )


def test_workers_are_shared_by_drills_that_leave_them_whole(tiny: Drills) -> None:
    def main(found: Drill) -> int:
        return found.expect_signal("task_received").pid

    first, second = tiny("raises"), tiny("worker_lost")
    assert main(first) == main(second) == main(tiny("raises"))
    broken = tiny("worker_killed")
    assert broken.exit_code == -9
    assert main(tiny("raises")) != main(first)


def test_a_registered_task_comes_to_the_end_under_its_own_name(tiny: Drills) -> None:
    found = tiny("raises", task="tiny.pay", args=["o1"], kwargs={"card": "declined"})
    failure = found.expect_signal("task_failure")
    assert failure.sender == "tiny.pay"
    assert (failure.arguments["args"], failure.arguments["kwargs"]) == (["o1"], {"card": "declined"})
    assert "DrillError" in failure.arguments["exception"]


def test_a_task_with_a_route_of_its_own_is_retried_all_the_same(tiny: Drills) -> None:
    found = tiny("retries_exhausted", task="tiny.pay", args=["o1"])
    assert (found.state, found.runs) == ("FAILURE", 4)


def test_an_unknown_task_is_refused_with_the_nearest(tiny: Drills) -> None:
    with pytest.raises(
        DrillError, match=r"raises: the app has no task 'tiny.pya'; did you mean 'tiny.pay'\?"
    ):
        tiny("raises", task="tiny.pya")


def test_an_unknown_end_is_refused_with_the_nearest(tiny: Drills) -> None:
    with pytest.raises(DrillError, match=r"'worker_dies' is no end of a drill; did you mean 'worker_\w+'\?"):
        tiny("worker_dies")


def test_an_unknown_pool_is_refused(tiny: Drills) -> None:
    with pytest.raises(DrillError, match="drills know the pools prefork, solo, threads, not 'gevent'"):
        tiny("raises", pool="gevent")


def test_a_projects_own_end(drills: object) -> None:
    own = drills(  # type: ignore[operator]
        """
        def explodes(call):
            raise KeyError(call.said["key"])
        """
    )
    end = End(
        "own", "The task raises KeyError.", {}, "tiny:explodes", {"key": "order"}, until=("task_failure",)
    )
    assert "KeyError: 'order'" in own(end).expect_signal("task_failure").arguments["exception"]


def test_an_end_that_does_not_come_says_what_was_seen(tiny: Drills) -> None:
    never = End("never", "Waits for a signal that nothing sends.", {}, until=("task_unknown",))
    with pytest.raises(DrillError) as failed:
        tiny(never, within=0.5)
    line, *log = str(failed.value).splitlines()
    assert line.startswith("never: saw ")
    assert "task_success" in line
    assert line.endswith("waited in vain for task_unknown")
    assert any("succeeded in" in each for each in log)


def test_a_worker_that_starts_is_recorded_from_its_first_signal(tiny: Drills) -> None:
    names = [call.signal for call in tiny("worker_starts").signals]
    wanted = ["celeryd_init", "worker_init", "celeryd_after_setup", "worker_ready"]
    assert [name for name in names if name in wanted] == wanted
    assert "worker_process_init" in names
