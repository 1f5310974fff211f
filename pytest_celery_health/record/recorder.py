"""Records into memory, or into a file of JSON lines that processes share. Needs no pytest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from pytest_celery_health.record import http, logs, signals, sockets
from pytest_celery_health.record.metrics import Metrics
from pytest_celery_health.record.recording import Entry, Recording, from_json, to_json
from pytest_celery_health.record.tap import Tap

#: What is overheard, metrics apart.
TAPS: tuple[Tap, ...] = (signals.TAP, logs.TAP, sockets.TAP, http.TAP)


class Sink(Protocol):
    """Where entries go. It is called by any thread, and after a fork by the child."""

    def add(self, entry: Entry) -> None: ...


class Memory:
    """Entries of this process."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)


class JsonLines:
    """A file to which several processes append, each line whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, entry: Entry) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, to_json(entry).encode() + b"\n")
        finally:
            os.close(fd)


def read(path: Path) -> Recording:
    """What processes recorded into `path` so far, in the order of time; a broken line is left out."""
    return Recording(_in_order(_entries(path)))


def _in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.at))


def _entries(path: Path) -> Iterator[Entry]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield from_json(line)
        except ValueError:
            continue


class Recorder:
    """Records while it is entered; a process that is forked meanwhile goes on recording.

    sink: where entries go, by default into memory. allow: "host:port" that may be connected to outside of
    this machine; whatever else leaves it is refused.
    """

    def __init__(self, sink: Sink | None = None, *, allow: Sequence[str] = ()) -> None:
        self.memory = Memory()
        self.lost: dict[str, int] = {}
        self._sink = sink or self.memory
        self._allow = tuple(allow)
        self._stack = ExitStack()
        self._metrics: Metrics | None = None

    def __enter__(self) -> Recorder:
        with ExitStack() as stack:
            self.lost = signals.lost()
            for endpoint in self._allow:
                stack.enter_context(sockets.allowing(endpoint))
            for tap in TAPS:
                stack.enter_context(tap.listen(self._add))
            self._metrics = Metrics()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            http.settle()
            self.checkpoint()
        finally:
            self._stack.close()

    def checkpoint(self) -> None:
        """Note what metrics changed since the last time; a process that is killed cannot at its end."""
        if self._metrics is not None:
            for change in self._metrics.changes(signals.TAP):
                self._add(change)

    @property
    def recording(self) -> Recording:
        """What was recorded into memory so far."""
        return Recording(_in_order(self.memory.entries), lost=self.lost)

    def _add(self, entry: Entry) -> None:
        self._sink.add(entry)
