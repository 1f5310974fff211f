"""Whether a backlog moves: queues seen twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    overs: Mapping[str, float],
    known: Known,
    before: Workers | Unseen,
    again: Callable[[], Workers | Unseen],
) -> tuple[Queue, ...]:
    """`seen`, with the progress of those that hold messages.

    Each is watched until it moved, else for its seconds in `overs` or until SPARE before the deadline.
    `before` are the workers with their queues and what they had `accepted`; `again` asks them once more, if a
    backlog seems to stand still.
    """
    first = {queue.name: queue.ready for queue in seen if isinstance(queue.ready, int) and queue.ready}
    found: dict[str, Progress | Unseen] = {}
    if not first:
        return tuple(seen)
    marks = reader.oldest(first)
    start = monotonic()
    left = reader.deadline.left() - SPARE
    ends = {name: min(overs[name], left) for name in first}
    waiting = list(first)
    for elapsed in _pauses(start, ends.values()):
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
        waiting = [name for name in waiting if elapsed < ends[name] and _stands(found[name])]
        if not waiting:
            break
    still = any(map(_stands, found.values()))
    after = again() if still else before
    return tuple(
        replace(queue, progress=_settled(queue.name, found[queue.name], overs[queue.name], before, after))
        if queue.name in found
        else queue
        for queue in seen
    )


def growth(before: Workers | Unseen, after: Workers | Unseen, queue: str) -> int | Unseen:
    """How many tasks the workers that consume `queue` accepted between two rounds of `stats`.

    A worker that was started again in between counts from zero.
    """
    first, second = _accepted(before, queue), _accepted(after, queue)
    if isinstance(first, Unseen):
        return first
    if isinstance(second, Unseen):
        return second
    accepted = 0
    blind: Unseen | None = None
    for name, total in second.items():
        earlier = first.get(name, Unseen(f"{name} answered only once"))
        if isinstance(total, Unseen) or isinstance(earlier, Unseen):
            blind = total if isinstance(total, Unseen) else earlier  # type: ignore[assignment]
        else:
            accepted += total - earlier if total >= earlier else total
    unheard = after.unheard if isinstance(after, Workers) else 0
    if not accepted and not blind and unheard:
        return Unseen("not every mailbox answered")
    return accepted or blind or 0


def _accepted(workers: Workers | Unseen, queue: str) -> dict[str, int | Unseen] | Unseen:
    if isinstance(workers, Unseen):
        return workers
    names = workers.consuming(queue)
    if isinstance(names, Unseen):
        return names
    return {
        worker.name: worker.accepted if isinstance(worker.accepted, Unseen) else sum(worker.accepted.values())
        for worker in workers.answered
        if worker.name in names
    }


def _pauses(start: float, ends: Iterable[float]) -> Iterator[float]:
    """Sleep, ever longer, and yield the seconds since `start`; also as soon as each of `ends` has passed."""
    pause = FIRST_PAUSE
    elapsed = 0.0
    for end in sorted({*ends}):
        while elapsed < end or not elapsed:
            time.sleep(max(0.0, min(pause, end - (monotonic() - start))))
            elapsed = monotonic() - start
            yield elapsed
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
