"""Which ends of a task somebody hears of: what left the worker in a drill of each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

from pytest_celery_health.facts import AskDrills, Drilled, Ending, Output
from pytest_celery_health.project.child.load import LoadError, attribute
from pytest_celery_health.record.recording import LogRecord, MetricChange, Request
from pytest_celery_health.sandbox.drills.crew import WITHIN, Drill, DrillError, Drills, ImpossibleError
from pytest_celery_health.sandbox.drills.ends import ENDS, End

_HEARD = logging.WARNING


#: Crews that play what ends a worker, beside the one that plays the rest: they wait most of the time.
_OTHERS = 2


def drilled(crew: Drills, ask: AskDrills) -> Drilled:
    """The ends that `ask` names, each drilled once. Raises SandboxError when no worker starts."""
    pool = ask.pool or crew.pool
    lasting: list[str] = []
    ending: list[str] = []
    for name in ask.ends:
        end = ENDS.get(name)
        ends_it = end is not None and (end.fresh or pool in (*end.breaks, *end.forgotten))
        (ending if ends_it else lasting).append(name)
    found: dict[str, Ending] = {}
    troubles: list[BaseException] = []

    def play(drill: Drills, ends: Sequence[str]) -> None:
        for end in ends:
            if not troubles:
                found[end] = _ending(drill, end, ask)

    def play_apart(drill: Drills, ends: Sequence[str]) -> None:
        try:
            play(drill, ends)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            troubles.append(error)

    others = [(crew.another(), ending[each::_OTHERS]) for each in range(_OTHERS) if ending[each:]]
    threads = [threading.Thread(target=play_apart, args=other, daemon=True) for other in others]
    try:
        for thread in threads:
            thread.start()
        play(crew, lasting)
        for thread in threads:
            thread.join()
    except BaseException as error:
        troubles.append(error)
        raise
    finally:
        for drill, _ in others:
            drill.close()
    if troubles:
        raise troubles[0]
    return Drilled(tuple(found[end] for end in ask.ends), ask.task, ask.pool)


def _ending(drill: Drills, end: str, ask: AskDrills) -> Ending:
    try:
        found = drill(_own(end) if ":" in end else end, task=ask.task, pool=ask.pool, within=WITHIN)
    except ImpossibleError as error:
        return Ending(end, ask.task, ask.pool, impossible=str(error))
    except (DrillError, LoadError, ModuleNotFoundError) as error:
        return Ending(end, ask.task, ask.pool, unseen=str(error).partition("\n")[0])
    running = found.still_running
    raised = [found.masked(each.line()) for each in found.errors if each not in running]
    late = [
        f"{call.handler} on {call.signal} did not come back within {WITHIN:g} s"
        for call in found.still_running
    ]
    errors = tuple(dict.fromkeys([*raised, *late]))
    return Ending(end, found.task, found.pool, tuple(_outputs(found)), errors)


def _own(name: str) -> End:
    found = attribute(name)
    if not isinstance(found, End):
        raise LoadError(f"{name} is no End of a drill")
    return found


def _outputs(found: Drill) -> Iterator[Output]:
    heard: dict[tuple[str, str], list[str]] = {}
    for entry in found.entries:
        if isinstance(entry, Request) and entry.method:
            heard.setdefault(("request", entry.host), []).append(_why_lost(entry))
        elif isinstance(entry, LogRecord) and _is_heard(entry.level):
            heard.setdefault(("log", entry.logger), []).append(entry.nobody)
        elif isinstance(entry, MetricChange):
            heard.setdefault(("metric", entry.name), []).append("")
    for (kind, name), lost in heard.items():
        taken = lost.count("")
        yield Output(kind, name, taken or len(lost), "" if taken else lost[0])


def _why_lost(request: Request) -> str:
    if request.status is None:
        return request.error or "no answer"
    return f"HTTP {request.status}" if request.status >= 400 else ""


def _is_heard(level: str) -> bool:
    number = logging.getLevelName(level)
    return isinstance(number, int) and number >= _HEARD
