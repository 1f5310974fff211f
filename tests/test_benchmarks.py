"""That the benchmarks run; never how long they take."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import scene, verdict  # noqa: E402
from benchmarks.measure import Row, Side, compare, table  # noqa: E402
from pytest_celery_health.sandbox.brokers import UnavailableError  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.mark.timeout(120)
def test_the_suite_runs_and_prints_ratios() -> None:
    argv = [sys.executable, "-m", "benchmarks", "--quick", "--no-rabbitmq", "depths", "process", "startup"]
    argv += ["simulated", "recording"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    if "Redis left out" not in done.stdout:
        for what, than in (
            ("depths of 10 queues, Redis", "a passive declare each"),
            ("whole process, Redis", "celery inspect ping"),
            ("1 worker that answers, Redis", "starting celery worker"),
        ):
            assert re.search(rf"\| {what} \| \*\*[\d.,]+x\*\* \| {than} \|", done.stdout), done.stdout
        assert re.search(r"celery_fleet on Redis: the fixture [\d.,]+ ms, the first worker", done.stdout)
    assert re.search(r"pytest-celery-health adds [+-][\d.]+ ms to an empty collection", done.stdout)
    assert re.search(r"a recording adds [+-][\d.]+ ms to a task with 3 handlers", done.stdout)


def test_both_sides_of_a_verdict_see_every_worker() -> None:
    try:
        with scene.redis() as url, scene.app(url) as app, scene.fleet(app, 3) as names:
            verdict.ours(app, names)()
            verdict.limited(app, 3)()
            with pytest.raises(AssertionError, match="3 workers answer"):
                verdict.ours(app, [*names, "one more"])()
    except UnavailableError as reason:
        pytest.skip(str(reason))


def test_sides_run_in_turn_and_ratios_are_against_ours() -> None:
    order: list[str] = []
    sides = [
        Side("ours", lambda: order.append("ours"), times=2),
        Side("theirs", lambda: order.append("theirs")),
    ]
    row = compare("a thing", sides, rounds=2)
    assert order[2:] == ["ours", "ours", "theirs", "theirs", "ours", "ours"]
    assert {name: len(times) for name, times in row.taken.items()} == {"ours": 4, "theirs": 2}
    slow = Row("a thing", {"ours": 0.01, "the usual": 2.5, "another": 0.005}, goal=300)
    assert (slow.ratios, slow.reached) == ({"the usual": 250, "another": 0.5}, False)
    assert "| a thing | **250x** | the usual | 10.0 ms | 2,500 ms | 300x: MISSED |" in table([slow])
