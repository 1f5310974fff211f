"""Whether log records arrive: from every logger that matters, whole, and with what they should hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from pytest_celery_health.checks.alerts import refuse_unknown_pool
from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import first_names, listed, plural
from pytest_celery_health.facts import (
    Ask,
    AskLogs,
    Delivery,
    LogLine,
    Logs,
    Snapshot,
    Unseen,
)
from pytest_celery_health.spelling import meant
from pytest_celery_health.verdict import Finding

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
#: What may be wrong, as `allow` calls it.
KINDS = ("lost", "hijacked", "format", "fields", "level", "leak", "rotation", "queue", "escapes", "reach")

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NO_VALUE = (None, "", "???", "None", "-")
_DEEPEST = 3
_SHOWN = 100
_STRUCTLOG = "structlog of "
_PRINT = "print"
_TASK_FIELD = re.compile(r"\b(task_name|task_id)\b")

#: A mistake: its kind, the loggers and handlers that `allow` may name, and what is said of it.
_Mistake = tuple[str, Sequence[str], Finding]


@dataclass(frozen=True)
class LogsArrive(Check):
    """Log records reach a handler as a worker sets up logging, and every handler can write them.

    fields: what every record that the app's modules write in a task must hold: "task_id" and "task_name" with
        the task's own, others with some value.
    level: the least level that must arrive.
    must_reach: by handler, the loggers that must reach it. A handler is known by its name, by its class or by
        where it writes ("stderr", a file); a logger stands for those below it, too.
    allow: mistakes that are accepted: "LOGGER", "HANDLER", or those of one kind, "rotation:HANDLER".
    pool: "prefork", "solo" or "threads"; unless given, the sandbox's.

    Source: drills in a worker with -l INFO. Records are written in a task and outside of tasks, by every
    logger that the app's own modules use and by Celery's.
    """

    needs_sandbox: ClassVar[bool] = True

    _: KW_ONLY
    fields: tuple[str, ...] = ()
    level: str = "WARNING"
    must_reach: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    pool: str = ""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f'level is "{self.level}"; there are {", ".join(LEVELS)}')
        for handler, loggers in self.must_reach.items():
            if not handler or not loggers:
                raise ValueError(
                    f'must_reach has no logger for "{handler}"; write ["shop", "celery.app.trace"], say'
                )
        for entry in self.allow:
            kind, colon, name = entry.partition(":")
            if colon and (kind not in KINDS or not name):
                raise ValueError(f'allow has "{entry}"; write "NAME" or "KIND:NAME"; {meant(kind, KINDS)}')
        refuse_unknown_pool(self.pool)

    def asks(self) -> Iterable[Ask]:
        loggers = [logger for loggers in self.must_reach.values() for logger in loggers]
        yield AskLogs(tuple(dict.fromkeys(loggers)), self.pool)

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        logs = seen.fact(Logs, pool=self.pool)
        if isinstance(logs, Unseen):
            yield Finding.unseen("logs", logs)
            return
        if not logs.lines:
            yield Finding(None, "logs", "no record was written")
            return
        for kind, names, finding in self._mistakes(logs):
            if not any(entry in (name, f"{kind}:{name}") for entry in self.allow for name in names):
                yield finding
        tried = list(dict.fromkeys(line.logger for line in logs.lines if not line.source))
        yield Finding(
            True,
            plural(len(tried), "logger"),
            "reaches its handlers" if len(tried) == 1 else "reach their handlers",
            figures=_figures(logs),
        )

    def table(self, seen: Snapshot) -> Iterable[Sequence[str]]:
        logs = seen.fact(Logs, pool=self.pool)
        if isinstance(logs, Unseen) or not logs.lines:
            return
        ours = [line for line in logs.lines if not line.source]
        columns = list(dict.fromkeys(each.title for line in ours for each in line.deliveries))
        yield "logger", "written in", *columns
        for name in dict.fromkeys(line.logger for line in ours):
            lines = [line for line in ours if line.logger == name]
            more = f" and {lines[0].alike} more" if lines[0].alike else ""
            where = {"task": [each for each in lines if each.task_id]}
            where["no task"] = [each for each in lines if not each.task_id]
            rows = {word: _cells(each, columns) for word, each in where.items() if each}
            if len(rows) > 1 and rows["task"] == rows["no task"]:
                rows = {"both": rows["task"]}
            for word, cells in rows.items():
                yield name + more, word, *cells

    # What may be wrong.

    def _mistakes(self, logs: Logs) -> Iterator[_Mistake]:
        yield from _hijacked(logs)
        yield from self._lost(logs)
        yield from _unwritten(logs)
        yield from self._unreached(logs)
        yield from self._lacking(logs)
        yield from _changed(logs)
        yield from _leaking(logs)
        yield from _shared(logs)
        yield from _stuck(logs)
        yield from _coloured(logs)

    def _lost(self, logs: Logs) -> Iterator[_Mistake]:
        lost: dict[tuple[str, str], list[LogLine]] = {}
        for line in logs.lines:
            failed = any(each.error for each in line.deliveries)  # which is told of the handler
            known = line.own or _is_celerys(line.logger)
            if line.nobody and not failed and known and self._counts(line):
                lost.setdefault((line.logger, line.nobody), []).append(line)
        told: set[str] = set()
        for (logger, why), lines in lost.items():
            ours = [line for line in lines if not line.source]
            if not ours and why in told:  # a logger of Celery for which another was tried
                continue
            told.add(why)
            levels = [level for level in LEVELS if any(line.level == level for line in lines)]
            most = LEVELS[LEVELS.index(self.level) :]
            at = "" if tuple(levels) == most or logger == _PRINT else f" at {listed(levels)}"
            alike = lines[0].alike
            yield (
                "lost",
                [logger],
                Finding(
                    False,
                    logger,
                    f"reaches no handler{at}{_where(lines)}: {why}",
                    f"one that takes {self.level} and above",
                    f"nor do {plural(alike, 'other logger')} of Celery" if alike else "",
                ),
            )

    def _counts(self, line: LogLine) -> bool:
        return line.level in LEVELS and LEVELS.index(line.level) >= LEVELS.index(self.level)

    def _unreached(self, logs: Logs) -> Iterator[_Mistake]:
        kinds = {(each.name, each.target): each.kind for each in logs.handlers}
        for handler, loggers in self.must_reach.items():
            for logger in dict.fromkeys(loggers):
                lines = [each for each in logs.lines if not each.source and _is_below(each.logger, logger)]
                judged = [line for line in lines if self._counts(line)]
                if not judged:
                    yield (
                        "reach",
                        [logger],
                        Finding(None, logger, f"the worker has no logger {logger}, nor one below it"),
                    )
                    continue
                short = [
                    line
                    for line in judged
                    if not any(_fits(each, handler, kinds) for each in line.deliveries)
                ]
                if short:
                    reached = dict.fromkeys(
                        each.title for line in short for each in line.deliveries if each.taken
                    )
                    only = f", only {listed(list(reached))}" if reached else ""
                    names = list(dict.fromkeys(line.logger for line in short))
                    yield (
                        "reach",
                        [logger, handler],
                        Finding(
                            False,
                            first_names(names),
                            f"never {_verb(names, 'reaches', 'reach')} {handler}{_where(short)}{only}",
                            f"{self.level} and above there",
                        ),
                    )

    def _lacking(self, logs: Logs) -> Iterator[_Mistake]:
        if not self.fields:
            return
        wanted = f"{listed(self.fields)} in every record of a task"
        told: set[tuple[str, ...]] = set()
        for line in logs.lines:
            taken = [each for each in line.deliveries if each.taken]
            if line.source or not line.own or not line.task_id or not taken:
                continue
            missing = [
                (tuple(name for name in self.fields if not _has(name, line, each)), each) for each in taken
            ]
            least, where = min(missing, key=lambda pair: len(pair[0]))
            if least and (line.logger, *least) not in told:
                told.add((line.logger, *least))
                text = " ".join(_plain(where.text).split())
                hint = f"it writes {text[:_SHOWN]}" if text else ""
                seen = f"has no {listed(least, 'or')} in {where.title}"
                yield "fields", [line.logger, where.handler], Finding(False, line.logger, seen, wanted, hint)


def _hijacked(logs: Logs) -> Iterator[_Mistake]:
    several = any(len(each.pids) > 1 for each in logs.handlers)
    for each in logs.gone:
        away = (
            "loses its place to Celery's own" if each.stock else "is taken away when a worker sets up logging"
        )
        subject, about = _handler(each.name, each.kind, each.target)
        seen = f"{away}, from {listed(each.loggers)}, and gets no record{about}"
        hint = "connect a handler to setup_logging, or set worker_hijack_root_logger = False"
        names = [each.name, *each.loggers]
        yield "hijacked", names, Finding(False, subject, seen, "its records", hint, warning=each.stock)
        if each.error:
            seen = f"fails with {each.error} for a record from outside of tasks, too{about}"
            yield (
                "format",
                names,
                Finding(False, subject, seen, "a line for every record", _remedy(each.error)),
            )
        if each.rotates and several:
            seen = f"would be rotated by every process of the pool{about}"
            yield "rotation", names, Finding(False, subject, seen, *_ONE_ROTATES)


_ONE_ROTATES = (
    "one process that rotates it",
    "who renames a file under others loses lines; use WatchedFileHandler and logrotate, or stderr",
)


def _unwritten(logs: Logs) -> Iterator[_Mistake]:
    failed: dict[tuple[str, str, str], list[tuple[LogLine, Delivery]]] = {}
    for line in logs.lines:
        for each in line.deliveries:
            if each.error:
                failed.setdefault((each.handler, each.target, each.error), []).append((line, each))
    kinds = {(each.name, each.target): each.kind for each in logs.handlers}
    for (name, target, error), pairs in failed.items():
        lines = [line for line, _ in pairs]
        loggers = list(dict.fromkeys(line.logger for line in lines))
        silent = "" if any(each.told for _, each in pairs) else ", and nothing tells of it"
        subject, about = _handler(name, kinds.get((name, target), ""), target)
        seen = f"fails with {error} for records of {first_names(loggers, 3)}{_where(lines)}{silent}{about}"
        finding = Finding(False, subject, seen, "a line for every record", _remedy(error))
        yield "format", [name, *loggers], finding


def _remedy(error: str) -> str:
    if _TASK_FIELD.search(error):
        return "celery.app.log.TaskFormatter has it for every record, in a task and out of one"
    return ""


def _changed(logs: Logs) -> Iterator[_Mistake]:
    for logger in dict.fromkeys(line.logger for line in logs.lines):
        changes: dict[str, str] = {}
        for line in logs.lines:
            for each in line.deliveries if line.logger == logger and not line.source else ():
                if each.taken and each.level not in ("", line.level):
                    changes[line.level] = each.level
        if changes:
            arrives = listed(sorted(set(changes.values()), key=_rank), "or")
            seen = f"arrives as {arrives} when it is {listed(sorted(changes, key=_rank), 'or')}"
            hint = ""
            if logger.startswith(_STRUCTLOG):
                hint = "it prints; give it logger_factory=structlog.stdlib.LoggerFactory()"
            yield "level", [logger], Finding(False, logger, seen, "the level that it was written at", hint)


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else -1


def _leaking(logs: Logs) -> Iterator[_Mistake]:
    leaking = [line for line in logs.lines if line.leaked]
    for logger in dict.fromkeys(line.logger for line in leaking):
        seen = "keeps what a task had bound for the next task of its process"
        hint = "clear it in a handler of task_prerun: structlog.contextvars.clear_contextvars()"
        yield "leak", [logger], Finding(False, logger, seen, "a context of its own for each task", hint)


def _shared(logs: Logs) -> Iterator[_Mistake]:
    for each in logs.handlers:
        if each.rotates and len(each.pids) > 1:
            subject, about = _handler(each.name, each.kind, each.target)
            seen = f"is rotated by each of {len(each.pids)} processes that write to it{about}"
            yield "rotation", [each.name, *each.loggers], Finding(False, subject, seen, *_ONE_ROTATES)


def _stuck(logs: Logs) -> Iterator[_Mistake]:
    for each in logs.handlers:
        if each.stuck:
            hint = "threads do not survive a fork: start its listener in a handler of worker_process_init"
            subject, about = _handler(each.name, each.kind, each.target)
            seen = f"keeps records: {each.stuck}{about}"
            finding = Finding(False, subject, seen, "a listener in each process", hint)
            yield "queue", [each.name, *each.loggers], finding


def _coloured(logs: Logs) -> Iterator[_Mistake]:
    files = {(each.name, each.target): each for each in logs.handlers if each.file}
    told: set[tuple[str, str]] = set()
    for line in logs.lines:
        for each in line.deliveries:
            key = (each.handler, each.target)
            if key in files and key not in told and _ANSI.search(each.text):
                told.add(key)
                handler = files[key]
                subject, about = _handler(handler.name, handler.kind, handler.target)
                seen = f"writes the escape codes of colours to a file{about}"
                hint = f"give {handler.formatter} use_color=False" if handler.formatter in _COLOURING else ""
                finding = Finding(False, subject, seen, "plain text", hint)
                yield "escapes", [handler.name, *handler.loggers], finding


_COLOURING = ("ColorFormatter", "TaskFormatter")


# Words, and what a record holds.


def _handler(name: str, kind: str, target: str) -> tuple[str, str]:
    """A log handler as a sentence begins and ends with it: "handler console", " (StreamHandler, stderr)"."""
    about = ", ".join(filter(None, ("" if name == kind else kind, target)))
    return (name if name == kind or not kind else f"handler {name}"), (f" ({about})" if about else "")


def _where(lines: Sequence[LogLine]) -> str:
    inside = {bool(line.task_id) for line in lines}
    if inside == {True, False} or all(line.logger == _PRINT for line in lines):
        return ""
    return " in a task" if inside == {True} else " outside of tasks"


def _verb(names: Sequence[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many


def _is_celerys(logger: str) -> bool:
    return f"{logger}.".startswith("celery.") or logger == _PRINT


def _is_below(logger: str, wanted: str) -> bool:
    return f"{logger.removeprefix(_STRUCTLOG)}.".startswith(f"{wanted}.")


def _fits(delivery: Delivery, wanted: str, kinds: Mapping[tuple[str, str], str]) -> bool:
    known = (delivery.handler, delivery.target, kinds.get((delivery.handler, delivery.target), ""))
    return delivery.taken and (wanted in known or delivery.target.endswith(f"/{wanted}"))


def _cells(lines: Sequence[LogLine], columns: Sequence[str]) -> list[str]:
    """By handler, the least level that it takes."""
    cells = []
    for column in columns:
        made = [(line, each) for line in lines for each in line.deliveries if each.title == column]
        taken = sorted((line.level for line, each in made if each.taken), key=_rank)
        wrong = any(each.error for _, each in made)
        arrives = taken[0] if taken else "-"
        cells.append(("fails" if not taken else f"{arrives}, fails") if wrong else arrives)
    return cells


def _figures(logs: Logs) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for line in logs.lines:
        if not line.source:
            titles = [each.title for each in line.deliveries if each.taken]
            before = str(found.get(f"{line.logger}.reaches", "")).split(", ")
            found[f"{line.logger}.reaches"] = ", ".join(dict.fromkeys(filter(None, [*before, *titles])))
    return found


def _has(name: str, line: LogLine, delivery: Delivery) -> bool:
    """Whether what was written holds this field; that of the task, if it is one that is known."""
    known = {"task_id": line.task_id, "task_name": line.task}.get(name)
    text = _plain(delivery.text)
    if not text:
        return _is_value({**line.fields, **delivery.brings}.get(name), known)
    found = _object(text)
    if found is not None:
        return any(_is_value(value, known) for value in _values(found, name))
    if known is not None:
        return known in text
    value = line.fields.get(name)
    named = re.search(rf"\b{re.escape(name)}\b[\"']?\s*[=:]\s*[\"']?([^\s,;\"']+)", text)
    return (named is not None and _is_value(named[1], None)) or (
        _is_value(value, None) and str(value) in text
    )


def _is_value(value: Any, known: str | None) -> bool:
    return value not in _NO_VALUE if known is None else value == known


def _plain(text: str) -> str:
    return _ANSI.sub("", text)


def _object(text: str) -> Mapping[str, Any] | None:
    """The JSON object that a line holds, behind whatever syslog puts before it."""
    begin = text.find("{")
    if begin < 0:
        return None
    try:
        found = json.loads(text[begin:])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _values(found: Mapping[str, Any], name: str, depth: int = 0) -> Iterator[Any]:
    for key, value in found.items():
        if key == name:
            yield value
        if isinstance(value, dict) and depth < _DEEPEST:
            yield from _values(value, name, depth + 1)
