"""What simulated workers and filled queues cost a test: against a real worker's start."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

from benchmarks import scene
from benchmarks.measure import Row, Side, compare
from pytest_celery_health.sandbox.fleet.here import CeleryFleet

NAMES = ("celery_fleet.worker()", "starting celery worker")


def row(kind: str, url: str, rounds: int) -> Row:
    """A test's fixture and one worker that answers, and its end."""
    with scene.app(url) as app:

        def ours() -> None:
            with CeleryFleet(app, url) as fleet:
                fleet.worker("w1@sim")
                if not app.control.ping(limit=1, timeout=5):
                    raise AssertionError("the simulated worker does not answer")

        def theirs() -> None:
            with scene.worker(app):
                pass

        sides = [Side(NAMES[0], ours, 3), Side(NAMES[1], theirs, warm=False)]
        return compare(f"1 worker that answers, {kind}", sides, rounds)


def summary(kind: str, url: str, rounds: int) -> Sequence[str]:
    """Each part of it, in milliseconds."""
    parts: dict[str, list[float]] = {}

    def timed(part: str, do: Callable[..., object], *args: object) -> None:
        begun = time.perf_counter()
        do(*args)
        parts.setdefault(part, []).append((time.perf_counter() - begun) * 1000)

    with scene.app(url) as app:
        for _ in range(rounds):
            fleet = CeleryFleet(app, url)
            timed("the fixture", fleet.__enter__)
            timed("the first worker", fleet.worker, "w0@sim")
            timed("a thousand more", fleet.workers, 1000)
            timed("1,000 messages", fleet.queue, f"{app.conf.control_exchange}-q", 1000)
            timed("its end", fleet.__exit__)
    told = ", ".join(f"{part} {median(times):,.1f} ms" for part, times in parts.items())
    return [f"celery_fleet on {kind}: {told} (goals: 20 ms for a worker, 2,000 ms for a thousand)"]
