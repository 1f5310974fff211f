"""What a recording in the test's own process adds to a task: against Celery's own `apply()`."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from celery import Celery, signals

from benchmarks.measure import Row, Side, compare
from pytest_celery_health.record.in_process import CelerySignals

NAMES = ("celery_signals.run()", "apply()")


def row(rounds: int) -> Row:
    """A task that fails, with a handler that logs on each of its three signals."""
    app = Celery("benchmark", broker="redis://nobody.invalid/0", set_as_current=False)
    logger = logging.getLogger("benchmark")
    logger.propagate = False
    logger.handlers = [logging.NullHandler()]
    logging.getLogger("celery.app.trace").propagate = False

    @app.task(name="benchmark.charge", shared=False)
    def charge(card: str) -> None:
        raise ValueError(card)

    def log(sender: object, **_: object) -> None:
        logger.error("%s", sender)

    heard = (signals.task_prerun, signals.task_failure, signals.task_postrun)
    for signal in heard:
        signal.connect(log, sender=app.tasks[charge.name])
    try:
        with CelerySignals() as recorded:

            def run() -> None:
                recorded.run(charge.s("x"), raises=ValueError).expect_handler("log", count=3)

            sides = [Side(NAMES[0], run, 50), Side(NAMES[1], lambda: charge.apply(("x",)), 50)]
            return compare("a failing task, processor time", sides, rounds, clock=time.process_time)
    finally:
        for signal in heard:
            signal.disconnect(log, sender=app.tasks[charge.name])


def summary(row: Row) -> Sequence[str]:
    """What a recording adds, in milliseconds."""
    ours, theirs = (row.medians[name] * 1000 for name in NAMES)
    return [f"a recording adds {ours - theirs:+.2f} ms to a task with 3 handlers (goal: below 1)"]
