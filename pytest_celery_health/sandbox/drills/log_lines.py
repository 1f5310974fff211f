"""What becomes of log records in a worker: of ours, by every logger that matters, and of tasks' ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from pytest_celery_health.facts import AskLogs, Delivery, LogHandler, LogLine, Logs
from pytest_celery_health.masking import mask
from pytest_celery_health.record.log_tries import LEVELS, STRUCTLOG, tried
from pytest_celery_health.record.recording import LogRecord, LogSetup, LogWritten, Recording
from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.drills.crew import DrillError, Drills
from pytest_celery_health.sandbox.drills.ends import End
from pytest_celery_health.sandbox.drills.stage import OverError, Stage
from pytest_celery_health.sandbox.queues.messages import new_id

#: The ends at which the app's own handlers write: in a child, and in the main process.
_ENDS = ("raises", "retry", "unregistered", "worker_lost")
_BODIES = "pytest_celery_health.sandbox.drills.bodies"
#: The processes of a pool that say how logging is set up, and the seconds that they wait for each other.
_CHILDREN = 2
_PATIENCE = 2.0
#: Seconds for all of our records.
_WITHIN = 20.0
#: What is kept of the text of a record that is not one of ours.
_SHORT = 300
#: The turn that writes at every level, and those that see what the task before has left.
_ALL_LEVELS, *_AGAIN = (1, 2, 3)


def logged(crew: Drills, ask: AskLogs) -> Logs:
    """What became of records in the app's worker. Raises SandboxError where that cannot be told."""
    end = End("logs", "The task writes log records.", {}, f"{_BODIES}:logs", play=partial(_play, ask.loggers))
    try:
        found = crew(end, pool=ask.pool, within=_WITHIN)
    except DrillError as error:
        raise SandboxError(str(error).partition("\n")[0]) from None
    ends: dict[str, Recording] = {}
    for name in _ENDS:
        with suppress(DrillError):  # one that this pool does not know, or that the row of alerts tells of
            ends[name] = crew(name, pool=ask.pool)
    setups = [entry for entry in found.entries if isinstance(entry, LogSetup)]
    known = {each["name"]: each for entry in setups for each in entry.setup["loggers"]}
    lines = [*_ours(found, known), *_theirs({"success": found, **ends}, known)]
    gone = [_handler(each) for entry in setups for each in entry.setup.get("gone", ())]
    return Logs(tuple(lines), tuple(_handlers(setups)), tuple(gone), ask.pool)


def _play(loggers: Sequence[str], stage: Stage) -> None:
    said = {"loggers": loggers, "turn": _ALL_LEVELS, "levels": LEVELS, "raises": False}
    stage.send(said=said)
    stage.wait_for("task_postrun")
    for turn in _AGAIN:
        _send(stage, said={**said, "turn": turn, "levels": ("ERROR",), "raises": turn == _AGAIN[0]})
    if stage.worker.pool == "prefork":
        _ask_children(stage)
    stage.worker.ask(do="log", loggers=loggers)
    stage.wait(lambda: any(_is_of_main(each) for each in stage.entries), "the main process' log records")


def _ask_children(stage: Stage) -> None:
    """Have children of the pool say at once how logging is set up: at one time they cannot be one process."""
    said = {"others": _CHILDREN, "seconds": _PATIENCE}
    body = f"{_BODIES}:tells_of_logging"
    grown = _grow(stage, _CHILDREN - 1)
    try:
        ids = [new_id() for _ in range(_CHILDREN)]
        for each in ids:
            stage.send(id=each, body=body, said=said)
        for each in ids:
            stage.wait(partial(stage.sent, "task_postrun", id=each), "what a child says of its logging")
    finally:
        if grown:
            with suppress(OverError):
                stage.wait(lambda: _grow(stage, 1 - _CHILDREN), "fewer processes", up_to=_PATIENCE)


def _grow(stage: Stage, by: int) -> bool:
    return bool((stage.worker.ask(do="grow", by=by) or {}).get("grown"))


def _send(stage: Stage, **more: Any) -> None:
    task_id = new_id()
    stage.send(id=task_id, **more)
    stage.wait(lambda: stage.sent("task_postrun", id=task_id) or stage.gone, "task_postrun")
    if stage.gone:
        raise OverError("task_postrun")


def _is_of_main(entry: object) -> bool:
    return isinstance(entry, LogSetup) and "gone" in entry.setup


# Lines.


def _ours(found: Recording, known: dict[str, Any]) -> Iterator[LogLine]:
    """A line for each of our records, of the several entries that one may have."""
    entries: dict[tuple[str, str, int], list[LogRecord]] = {}
    later: dict[tuple[str, str, int], list[Delivery]] = {}
    for entry in found.entries:
        key = tried(entry.message) if isinstance(entry, (LogRecord, LogWritten)) else None
        if isinstance(entry, LogRecord) and key is not None:
            entries.setdefault(key, []).append(entry)
        elif isinstance(entry, LogWritten) and key is not None:
            later.setdefault(key, []).append(entry.delivery)
    before: dict[int, str] = {key[2]: records[0].task_id for key, records in entries.items()}
    for (name, level, turn), records in entries.items():
        about = known.get(name, {})
        made = [each for record in records for each in record.deliveries or ()]
        made = [_masked(each) for each in [*made, *later.get((name, level, turn), [])]]
        lost = [record.lost for record in records]
        line = LogLine(
            name,
            level,
            own=about.get("own", name.startswith(STRUCTLOG)),
            alike=about.get("alike", 0),
            process=records[0].process,
            task=records[0].task,
            task_id=records[0].task_id,
            deliveries=tuple(made),
            fields={field: value for record in records for field, value in record.fields.items()},
            lost="" if any(each.taken for each in made) else "; ".join(dict.fromkeys(filter(None, lost))),
        )
        if turn not in _AGAIN:
            yield line
        elif _holds(line, before.get(turn - 1, "")):
            yield replace(line, leaked=f"the id {before[turn - 1]}")
        else:
            yield line


def _theirs(found: dict[str, Recording], known: dict[str, Any]) -> Iterator[LogLine]:
    for source, recording in found.items():
        for entry in recording.logs:
            if entry.deliveries is not None and tried(entry.message) is None:
                yield LogLine(
                    entry.logger,
                    entry.level,
                    own=known.get(entry.logger, {}).get("own", False),
                    source=source,
                    process=entry.process,
                    task=entry.task,
                    task_id=entry.task_id,
                    deliveries=tuple(
                        _masked(replace(each, text=each.text[:_SHORT])) for each in entry.deliveries
                    ),
                    fields=entry.fields,
                    lost=entry.lost,
                )


def _masked(delivery: Delivery) -> Delivery:
    error, target = mask(delivery.error), mask(delivery.target)
    return replace(delivery, error=error, target=target, text=mask(delivery.text))


def _holds(line: LogLine, text: str) -> bool:
    """Whether `text` is anywhere in what was written."""
    if not text:
        return False
    written = [line.fields, *(part for each in line.deliveries for part in (each.text, each.brings))]
    return any(text in str(each) for each in written)


# Handlers.


def _handlers(setups: Iterable[LogSetup]) -> Iterator[LogHandler]:
    """Each once, with the processes that have it."""
    found: dict[tuple[str, str, str], LogHandler] = {}
    for entry in setups:
        for told in entry.setup["handlers"]:
            one = _handler(told)
            key = (one.name, one.target, one.kind)
            other = found.get(key, one)
            found[key] = replace(
                one,
                loggers=tuple(dict.fromkeys(other.loggers + one.loggers)),
                pids=tuple(dict.fromkeys((*other.pids, entry.pid))),
                rotates=other.rotates or one.rotates,
                stuck=other.stuck or one.stuck,
            )
    yield from found.values()


def _handler(told: dict[str, Any]) -> LogHandler:
    return LogHandler(**{**told, "loggers": tuple(told["loggers"]), "pids": tuple(told["pids"])})
