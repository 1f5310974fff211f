"""The progress of a wait: live on a terminal, one line a change in a log."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager, nullcontext

import pytest

from pytest_celery_health.durations import spell
from pytest_celery_health.run import Progress


class Reporter:
    """Tells each look of a wait; `last` is what was open at the latest.

    Another thread than pytest's may call it, while pytest writes something `aside`.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._living = False
        self.last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            before, self.last = self.last, progress
            terminal = self._config.pluginmanager.get_plugin("terminalreporter")
            if terminal is None:
                return
            live = terminal.isatty and terminal.verbosity >= 0
            if live or before is None or before.standing != progress.standing:
                capture = self._config.pluginmanager.get_plugin("capturemanager")
                with nullcontext() if capture is None else capture.global_and_fixture_disabled():
                    self._tell(terminal, _line(progress), living=live and not progress.over)

    def _tell(self, terminal: pytest.TerminalReporter, line: str, *, living: bool) -> None:
        if not self._living:
            terminal.ensure_newline()
            if self._config.get_terminal_writer().width_of_current_line:
                terminal.write_line("")
        if self._living or living:
            width = shutil.get_terminal_size().columns - 1
            terminal.rewrite(line[:width], erase=True)
        else:
            terminal.write(line)
        if not living:
            terminal.write_line("")
        self._living = living

    @contextmanager
    def aside(self) -> Generator[None, None, None]:
        """Let something else be written, on a line of its own."""
        with self._lock:
            if self._living:
                self._living = False
                self._config.get_terminal_writer().line()
            yield


def _line(progress: Progress) -> str:
    held = progress.awaited - len(progress.open)
    elapsed = spell(min(round(progress.elapsed), progress.up_to))
    text = f"{elapsed} of {spell(progress.up_to)}: {held} of {progress.awaited} awaited checks hold"
    return f"{text}; {progress.open[0].message}" if progress.open else text
