"""Whether a backlog moves: queues seen twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pytest_celery_health.durations import spell
from pytest_celery_health.facts import Progress, Queue, Unseen, Workers
from pytest_celery_health.observe.clock import monotonic
from pytest_celery_health.observe.queues.base import Known, Marks, Reader

#: Seconds until the second look at a backlog, doubled from look to look.
FIRST_PAUSE = 0.05

#: Seconds of the deadline kept for asking the workers once more.
SPARE = 0.25


def watch(
    reader: Reader,
    seen: Sequence[Queue],
    over: float,
    known: Known,
    accepted: Callable[[], Workers | Unseen],
) -> tuple[Queue, ...]:
    """`seen`, with the progress of those that hold messages.

    It ends as soon as each of them moved, else after `over` seconds or SPARE before the deadline. `accepted`
    asks the workers for their queues and for what they accepted: at the start of a backlog, and at its end if
    it seems to stand still.
    """
    first = {queue.name: queue.ready for queue in seen if isinstance(queue.ready, int) and queue.ready}
    found: dict[str, Progress | Unseen] = {}
    if not first:
        return tuple(seen)
    before = accepted()
    marks = reader.oldest(first)
    start = monotonic()
    for elapsed in _pauses(start, min(over, reader.deadline.left() - SPARE)):
        waiting = [name for name in first if name not in found or _stands(found[name])]
        if not waiting:
            break
        for queue in reader.depths(waiting, known).queues:
            found[queue.name] = (
                queue.ready
                if isinstance(queue.ready, Unseen)
                else Progress(elapsed, first[queue.name], queue.ready, None, Unseen("not asked again"))
            )
        for name, now in reader.oldest(waiting).items():
            progress = found[name]
            if isinstance(progress, Progress) and name in marks:
                found[name] = replace(progress, oldest_moved=_moved(marks[name], now))
    still = any(map(_stands, found.values()))
    after = accepted() if still else before
    return tuple(
        replace(queue, progress=_settled(queue.name, found[queue.name], over, before, after))
        if queue.name in found
        else queue
        for queue in seen
    )


def growth(before: Workers | Unseen, after: Workers | Unseen, queue: str) -> int | Unseen:
    """How many tasks the workers that consume `queue` accepted between two rounds of `stats`.

    A worker that was started again in between counts from zero.
    """
    if isinstance(before, Unseen) or isinstance(after, Unseen):
        return before if isinstance(before, Unseen) else after  # type: ignore[return-value]
    earlier, names = before.consuming(queue), after.consuming(queue)
    if isinstance(earlier, Unseen) or isinstance(names, Unseen):
        return earlier if isinstance(earlier, Unseen) else names  # type: ignore[return-value]
    counts: dict[str, int] = {}
    for worker in before.answered:
        if worker.name in earlier and not isinstance(worker.accepted, Unseen):
            counts[worker.name] = sum(worker.accepted.values())
    accepted = 0
    for worker in after.answered:
        if worker.name not in names:
            continue
        if isinstance(worker.accepted, Unseen):
            return worker.accepted
        total = sum(worker.accepted.values())
        if worker.name in counts:
            accepted += total - counts[worker.name] if total >= counts[worker.name] else total
    return accepted


def _pauses(start: float, over: float) -> Iterator[float]:
    """Sleep, ever longer, and yield the seconds since `start`; the last time once `over` has passed."""
    pause = FIRST_PAUSE
    while True:
        elapsed = monotonic() - start
        time.sleep(max(0.0, min(pause, over - elapsed)))
        elapsed = monotonic() - start
        yield elapsed
        if elapsed >= over:
            return
        pause *= 2


def _moved(first: Marks, now: Marks) -> bool:
    return any(mark is not None and mark != later for mark, later in zip(first, now, strict=True))


def _stands(progress: Progress | Unseen) -> bool:
    return isinstance(progress, Progress) and not (
        progress.ready_after < progress.ready_before or progress.oldest_moved
    )


def _settled(
    name: str, progress: Progress | Unseen, over: float, before: Workers | Unseen, after: Workers | Unseen
) -> Progress | Unseen:
    if isinstance(progress, Unseen) or not _stands(progress):
        return progress
    accepted = growth(before, after, name)
    if progress.interval < over and not (isinstance(accepted, int) and accepted):
        return Unseen(
            f"it stood still for {spell(progress.interval)}; the deadline leaves no more of the {spell(over)}"
        )
    return replace(progress, accepted=accepted)
