"""The progress of a wait: live on a terminal, one line a change in a log."""

from __future__ import annotations

import shutil

import pytest

from pytest_celery_health.durations import spell
from pytest_celery_health.run import Progress


class Reporter:
    """Tells each look of a wait; `last` is what was open at the latest."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        before, self.last = self.last, progress
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None or hasattr(self._config, "workerinput"):
            return
        live = terminal.isatty and terminal.verbosity >= 0
        if not live and before is not None and before.open == progress.open:
            return
        line = _line(progress)
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        if capture is not None:
            capture.suspend_global_capture(in_=True)
        try:
            if not live:
                terminal.ensure_newline()
                terminal.write_line(line)
            else:
                if before is None:
                    terminal.ensure_newline()
                width = shutil.get_terminal_size().columns - 1
                terminal.rewrite(line[:width], erase=True)
            if live and (not progress.open or progress.over):
                terminal.write_line("")
        finally:
            if capture is not None:
                capture.resume_global_capture()


def _line(progress: Progress) -> str:
    held = progress.checks - len(progress.open)
    text = f"{spell(round(progress.elapsed))} of {spell(progress.up_to)}: {held} of {progress.checks} hold"
    return f"{text}; {progress.open[0]}" if progress.open else text
