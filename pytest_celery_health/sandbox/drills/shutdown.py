"""How a worker is shut down as Kubernetes does it, and what became of what it had."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_celery_health.sandbox.drills.stage import Stage

#: Seconds until a task that is held with an ETA is due.
_HELD_FOR = 3600.0
_PREFETCHED = 3
#: Seconds that a worker gets to take what it may; one that takes less than is there is full.
_TAKING = 0.5


@dataclass(frozen=True)
class Fates:
    """How many messages ended in which way.

    finished: run to the end, and acknowledged. requeued: not begun, and still in the broker.
    lost: not finished, and in the broker no more. run_twice: begun, and still in the broker, which will
    deliver it once more.
    """

    finished: int = 0
    requeued: int = 0
    lost: int = 0
    run_twice: int = 0

    def __str__(self) -> str:
        found = [(getattr(self, each.name), each.name.replace("_", " ")) for each in fields(self)]
        return ", ".join(f"{number} {word}" for number, word in found if number) or "none"


@dataclass(frozen=True)
class Shutdown:
    """What became of what a worker had when it was told to end.

    took: seconds until it had ended. killed: whether it took SIGKILL. exit_code: -9 for SIGKILL.
    running: of the task under way. prefetched: of those it had taken and not begun. eta: of one due later.
    """

    took: float
    killed: bool
    exit_code: int | None
    running: Fates
    prefetched: Fates
    eta: Fates

    def __str__(self) -> str:
        how = "killed" if self.killed else "ended"
        return (
            f"{how} after {self.took:.1f} s (exit code {self.exit_code}); running: {self.running};"
            f" prefetched: {self.prefetched}; held with an ETA: {self.eta}"
        )


def shut_down(stage: Stage, first: signal.Signals) -> None:
    """Give the worker something to run, to prefetch and to hold; send `first`, wait `grace`, send SIGKILL."""
    from pytest_celery_health.sandbox.drills.stage import OverError, in_seconds
    from pytest_celery_health.sandbox.queues.messages import new_id

    said = {"seconds": stage.runs_for}
    stage.send(said=said)
    stage.wait_for("task_prerun")
    held, waiting = new_id(), [new_id() for _ in range(_PREFETCHED)]
    stage.send(id=held, eta=in_seconds(_HELD_FOR))
    for each in waiting:
        stage.send(id=each, said={"seconds": 0})
    everything = [held, *waiting]
    if stage.worker.pool != "solo":  # which takes nothing while it is busy
        with suppress(OverError):
            stage.wait(lambda: stage.received(everything) == everything, "task_received", up_to=_TAKING)
    taken = stage.received(everything)
    began = time.monotonic()
    stage.file.touch()
    stage.signal(first)
    killed = False
    if first is not signal.SIGKILL:
        try:
            stage.wait(lambda: stage.gone, "the worker's end", up_to=stage.grace)
        except OverError:
            killed = True
            stage.signal(signal.SIGKILL)
    stage.wait(lambda: stage.gone, "the worker's end")
    took = time.monotonic() - began
    left = stage.left_in_the_broker()
    stage.shutdown = Shutdown(
        took,
        killed,
        stage.worker.exit_code,
        _fates(stage, [stage.id], left),
        _fates(stage, [each for each in waiting if each in taken], left),
        _fates(stage, [held] if held in taken else [], left),
    )


def _fates(stage: Stage, ids: list[str], left: set[str]) -> Fates:
    found = dict.fromkeys((each.name for each in fields(Fates)), 0)
    for each in ids:
        begun = bool(stage.sent("task_prerun", id=each))
        finished = bool(stage.sent("task_success", id=each))
        if each in left:
            found["run_twice" if begun else "requeued"] += 1
        else:
            found["finished" if finished else "lost"] += 1
    return Fates(**found)
