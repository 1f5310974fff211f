"""What simulated workers and filled queues cost a test: against a real worker's start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median

from benchmarks import scene
from benchmarks.measure import Row, Side, compare
from pytest_celery_health.sandbox.fleet.here import CeleryFleet

REAL = "starting celery worker"


def rows(kind: str, url: str, rounds: int, many: int = 1000) -> Iterator[Row]:
    """A test's fixture and one worker that answers, or many, and its end."""
    with scene.app(url) as app:

        def ours(count: int) -> None:
            with CeleryFleet(app, url) as fleet:
                fleet.workers(count)
                if len(app.control.ping(limit=count, timeout=30)) != count:
                    raise AssertionError("a simulated worker does not answer")

        def theirs() -> None:
            with scene.worker(app):
                pass

        titles = [f"1 worker that answers, {kind}", f"{many:,} workers that answer, {kind}"]
        sides = [
            Side(titles[0], partial(ours, 1), 3),
            Side(titles[1], partial(ours, many)),
            Side(REAL, theirs, warm=False),
        ]
        taken = compare("", sides, rounds).medians
        for title in titles:
            yield Row(title, {"celery_fleet": taken[title], REAL: taken[REAL]})


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
