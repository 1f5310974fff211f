"""The fixture `celery_faults` in a user's own test run."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from tests.faults.conftest import NOWHERE
from tests.support.own_run import (
    MARKED,
    assert_nothing_is_left_after,
    prepare,
    run,
    run_live,
    seen_by_processes,
)

pytestmark = pytest.mark.slow

TINY = f"""
from celery import Celery

app = Celery("tiny", broker="{NOWHERE}/0", backend="{NOWHERE}/1")

@app.task(name="tiny.pay")
def pay():
    pass
"""
HEALTH = """
import redis
from tiny import app

def check():
    try:
        with app.connection_for_read() as connection:
            found = app.control.broadcast("ping", reply=True, limit=1, timeout=1, connection=connection)
    except Exception as error:
        return f"unhealthy: {type(error).__name__}"
    return "healthy" if found else "unhealthy: no worker"

def hangs():
    return redis.Redis.from_url(app.conf.broker_url).ping()
"""
CONTRACT = '[tool.celery-health]\napp = "tiny:app"\n'
BROKER_TEST = """
import health

def test_a_broker_fault_needs_no_worker(celery_faults):
    assert health.check() == "unhealthy: no worker"
    with celery_faults.broker_closes():
        assert health.check() == "unhealthy: OperationalError"
    assert health.check() == "unhealthy: no worker"
"""
WORKER_TEST = """
import pytest, health

@pytest.mark.parametrize("fault", ["no_workers", "worker_frozen"])
def test_it_goes_red(celery_faults, fault):
    celery_faults.start("workers")
    assert health.check() == "healthy"
    with celery_faults(fault):
        assert health.check() == "unhealthy: no worker"
    assert health.check() == "healthy"

def test_it_stays_green_where_nothing_is_consumed(celery_faults):
    with celery_faults.not_consuming():
        assert health.check() == "unhealthy: nothing is consumed"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    prepare(monkeypatch)
    pytester.makepyprojecttoml(CONTRACT)
    pytester.makepyfile(tiny=TINY, health=HEALTH, test_it=WORKER_TEST)
    return pytester


def test_it_finds_a_check_that_does_not_turn_red(project: pytest.Pytester) -> None:
    found = run(project)
    found.assert_outcomes(passed=2, failed=1)
    found.stdout.fnmatch_lines(["*AssertionError: assert 'healthy' == 'unhealthy: n*"])


def test_it_works_in_a_health_run(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=MARKED + WORKER_TEST)
    run(project, "--celery-health").assert_outcomes(passed=2, failed=1)


def test_faults_of_the_broker_need_no_contract(project: pytest.Pytester) -> None:
    (project.path / "pyproject.toml").unlink()
    project.makepyfile(test_it=BROKER_TEST)
    run(project).assert_outcomes(passed=1)
    project.makepyfile(
        test_it="import tiny\n\ndef test_it(celery_faults):\n    with celery_faults.no_workers(): pass\n"
    )
    found = run(project)
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        ['*FaultError: no_workers: no app to start workers of; set app = "..." in [[]tool.celery-health]']
    )


def test_code_that_hangs_fails_at_the_deadline_with_where_it_hung(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import health

        def test_it(celery_faults):
            with celery_faults.broker_hangs(within=0.5):
                health.hangs()

        def test_the_next(celery_faults):
            assert health.hangs()
        """
    )
    began = time.monotonic()
    found = run(project)
    assert time.monotonic() - began < 60
    found.assert_outcomes(passed=1, failed=1)
    line = HEALTH.split("\n").index("    return redis.Redis.from_url(app.conf.broker_url).ping()")
    hung = f"within 0.5 s of broker_hangs: it hung at health.py:{line} (hangs), in redis/"
    found.stdout.fnmatch_lines(
        [f"FAILED test_it.py::test_it - *the code under test did not come back {hung}*"]
    )
    for ours in ("*sandbox/*.py*", "*contextlib.py*", "*redis/connection.py*"):
        found.stdout.no_fnmatch_line(ours)


@pytest.mark.slow
def test_where_the_thread_hung_that_the_code_waits_for(project: pytest.Pytester) -> None:
    """As of a test client that has its server in a thread."""
    project.makepyfile(
        test_it="""
        from concurrent.futures import ThreadPoolExecutor
        import health

        def test_it(celery_faults):
            with celery_faults.broker_hangs(within=0.5), ThreadPoolExecutor() as pool:
                pool.submit(health.hangs).result()
        """
    )
    found = run(project)
    found.assert_outcomes(failed=1)
    line = HEALTH.split("\n").index("    return redis.Redis.from_url(app.conf.broker_url).ping()")
    there = f"(wait), and another thread at health.py:{line} (hangs), in redis/"
    found.stdout.fnmatch_lines(
        [f"FAILED test_it.py::test_it - *it hung at test_it.py:6 (test_it), *{there}*"]
    )


def test_a_fault_that_a_test_never_leaves_fails_it_and_no_later_one(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import threading
        from contextlib import ExitStack
        import health

        stack = ExitStack()

        def deadlines():
            return [each for each in threading.enumerate() if each.name == "celery-health deadline"]

        def test_in_a_stack(celery_faults):
            stack.enter_context(celery_faults.broker_refuses())
            assert health.check() == "unhealthy: OperationalError"

        def test_the_next(celery_faults):
            assert not deadlines()
            assert health.hangs()

        def test_several(celery_faults):
            celery_faults.backend_hangs().__enter__()
            celery_faults.broker_hangs_after(replied=5).__enter__()

        def test_after_several(celery_faults):
            assert not deadlines()
            assert health.hangs()
            stack.close()
            assert health.hangs()
        """
    )
    found = run(project)
    found.assert_outcomes(passed=4, errors=2)
    found.stdout.fnmatch_lines(
        [
            "ERROR test_it.py::test_in_a_stack - Failed: broker_refuses was entered and never left; write"
            " `with celery_faults.broker_refuses():`",
            "ERROR test_it.py::test_several - Failed: backend_hangs and broker_hangs_after(replied=5) were"
            " entered and never left; write"
            " `with celery_faults.backend_hangs(), celery_faults.broker_hangs_after(replied=5):`",
        ]
    )


def test_a_fault_that_ended_at_its_deadline_was_never_left_either(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import health
        from pytest_celery_health.sandbox.faults import Fault
        from pytest_celery_health.sandbox.faults.ways import FAULTS

        OWN = Fault("own", "as broker_refuses", FAULTS[0].act, ("broker",), ("broker",))

        def test_it(celery_faults):
            held = celery_faults.broker_hangs(within=0.2).__enter__()
            try:
                health.hangs()
            except Exception:
                assert held.over

        def test_left_by_hand(celery_faults):
            fault = celery_faults.broker_refuses()
            fault.__enter__()
            fault.__exit__(None, None, None)
            fault.__exit__(None, None, None)
            assert health.hangs()

        def test_an_own_one(celery_faults):
            celery_faults(OWN).__enter__()
            assert False, "the test's own failure"
        """
    )
    found = run(project)
    found.assert_outcomes(passed=2, failed=1, errors=2)
    never = "was entered and never left; write"
    found.stdout.fnmatch_lines(
        [
            "FAILED test_it.py::test_an_own_one - AssertionError: the test's own failure*",
            f"ERROR test_it.py::test_it - Failed: broker_hangs {never} `with celery_faults.broker_hangs():`",
            f"ERROR test_it.py::test_an_own_one - Failed: own {never} `with celery_faults(...):`",
        ]
    )


def test_without_an_app_it_says_how_to_begin(project: pytest.Pytester) -> None:
    (project.path / "pyproject.toml").unlink()
    project.makepyfile(test_it="def test_it(celery_faults): pass")
    found = run(project)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["*celery_faults: there is no app: import yours at the top of the test *"])


def test_it_refuses_a_live_target(project: pytest.Pytester) -> None:
    found = run_live(project, CONTRACT, WORKER_TEST)
    found.assert_outcomes(errors=3)
    found.stdout.fnmatch_lines(
        ["*celery_faults: a fault breaks what it is held in; the target staging is only looked at"]
    )


def test_one_test_has_one_broker(project: pytest.Pytester) -> None:
    project.makepyfile(test_it="def test_it(celery_faults, celery_fleet): pass")
    found = run(project)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(
        ["*celery_faults: celery_fleet points the app at another broker; a test can have one of the two"]
    )


def test_a_world_that_was_replaced_is_told_of(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import health

        def test_it(celery_faults):
            with celery_faults.worker_frozen():
                celery_faults.world.sandbox.end_workers("w1", "broker")
            assert health.check() == "healthy"
            assert False, "to see the report"
        """
    )
    found = run(project)
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*to see the report*", "*celery_faults*", "the world was replaced: *"])


def test_what_one_test_sends_no_later_test_runs(project: pytest.Pytester) -> None:
    (project.path / "tiny.py").write_text(TINY.replace("    pass\n", "    open('paid', 'w').close()\n"))
    project.makepyfile(
        test_it="""
        import os, time, tiny

        def test_one(celery_faults):
            with celery_faults.broker_slow(latency=0.01):
                tiny.pay.delay()

        def test_two(celery_faults):
            with celery_faults.pool_saturated():
                pass
            assert not os.path.exists("paid")
            tiny.pay.delay().get(timeout=10)
            assert os.path.exists("paid")
        """
    )
    run(project).assert_outcomes(passed=2)


def test_each_process_of_xdist_has_a_world_of_its_own(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import os, pytest
        from pathlib import Path

        @pytest.mark.parametrize("turn", range(4))
        def test_it(celery_faults, turn):
            Path(f"seen-{os.environ['PYTEST_XDIST_WORKER']}-{celery_faults.world.proxy('broker').port}").touch()
        """
    )
    seen = seen_by_processes(project)
    assert len({port for _, port in seen}) == len({process for process, _ in seen}) == len(seen)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda each: each.name)
def test_nothing_is_left_after(project: pytest.Pytester, number: signal.Signals) -> None:
    project.makepyfile(
        test_it="""
        import os, time
        from pathlib import Path

        def test_it(celery_faults):
            with celery_faults.worker_frozen(within=60):
                keeper = celery_faults.world.sandbox._running().ask("hello")["pid"]
                Path("up.part").write_text(f"{keeper} {celery_faults.world.sandbox.folder}")
                Path("up.part").rename("up")
                time.sleep(60)
        """
    )

    def keeper_of(text: str) -> tuple[psutil.Process, Path]:
        pid, folder = text.split()
        return psutil.Process(int(pid)), Path(folder)

    assert_nothing_is_left_after(number, project, keeper_of)
