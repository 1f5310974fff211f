"""How a health run ends: what was counted, the exit code, the summary, and nothing left, also on a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from enum import Enum
from types import FrameType
from typing import Any

import pytest

from pytest_celery_health.contract.begin import nothing_to_judge
from pytest_celery_health.processes import Controller
from pytest_celery_health.report.terminal import Tally, refused, summary
from pytest_celery_health.rows import Row
from pytest_celery_health.run import Run

#: Exit code when nothing is unhealthy but something could not be seen; pytest's own end at 5 or 6.
UNKNOWN = 6


class _Stage(Enum):
    """Where a session is, as far as a signal is concerned."""

    STARTING = "before pytest would call pytest_sessionfinish"
    RUNNING = "a signal still gets its summary"
    TELLING = "pytest_sessionfinish"
    TOLD = "the verdict stands"


class Signals:
    """Ends a session on SIGTERM, on which pytest runs no finalizer, as on Ctrl-C, and on Ctrl-C in time."""

    def __init__(self) -> None:
        self.terminated = False
        self.stage = _Stage.STARTING
        self._before: dict[int, Any] = {}
        self._take(signal.SIGTERM, signal.SIG_DFL, self._terminate)

    def tell(self) -> None:
        """From now on a KeyboardInterrupt would be a traceback, and no exit code of pytest's."""
        self.stage = _Stage.TELLING
        self._take(signal.SIGINT, signal.default_int_handler, self._interrupt)

    def restore(self) -> None:
        for number, handler in self._before.items():
            with suppress(ValueError):
                signal.signal(number, handler)
        self._before.clear()

    def _take(
        self, number: int, unless_other: object, handler: Callable[[int, FrameType | None], None]
    ) -> None:
        if signal.getsignal(number) is unless_other:
            with suppress(ValueError):  # of another thread than the main one
                self._before[number] = signal.signal(number, handler)

    def _terminate(self, *_: object) -> None:
        if self.stage is _Stage.TOLD or self.terminated:
            return
        self.terminated = True
        # Of an unknown code pytest prints no summary.
        running = self.stage is _Stage.RUNNING
        pytest.exit("ended by SIGTERM", pytest.ExitCode.INTERRUPTED if running else 128 + signal.SIGTERM)

    def _interrupt(self, *_: object) -> None:
        if self.stage is not _Stage.TOLD:
            pytest.exit("ended by SIGINT", pytest.ExitCode.INTERRUPTED)


class Ending:
    """Hooks of the session's end. `controller` is None in a worker of pytest-xdist's; `foreign` are the rows
    that were meant for other targets."""

    def __init__(
        self, config: pytest.Config, run: Run, tally: Tally, controller: Controller | None, foreign: list[Row]
    ) -> None:
        self.config = config
        self.run = run
        self.tally = tally
        self.controller = controller
        self.foreign = foreign
        #: Whether the run came to its end.
        self.ended = False
        self.signals = None if controller is None else Signals()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionstart(self) -> Generator[None, None, None]:
        yield
        if self.signals is not None:
            self.signals.stage = _Stage.RUNNING

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, None, None]:
        if self.signals is None or self.controller is None:
            self._count()
            yield
            return
        self.signals.tell()
        self.controller.end()
        self._count()
        decided = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
        # With -x, pytest-xdist ends a run as Ctrl-C does.
        stopped = exitstatus == pytest.ExitCode.INTERRUPTED and bool(session.shouldfail)
        self.ended = exitstatus in decided or stopped
        if self.ended and not self.config.option.collectonly:
            session.exitstatus = self._exit_code(session)
        if self.signals.terminated:
            session.exitstatus = 128 + signal.SIGTERM
        try:
            yield
        finally:
            self.signals.stage = _Stage.TOLD

    def _count(self) -> None:
        for look in self.run.looks:
            self.tally.looks += 1
            self.tally.received += look.received
            self.tally.swept += look.swept
        self.tally.foreign += [row.nodeid for row in self.foreign]
        if self.run.sandbox is not None:
            self.tally.broker = self.run.sandbox.broker
            self.tally.notes += self.run.sandbox.notes
        if self.run.mistake is not None:
            self.tally.mistakes.append(str(self.run.mistake))
        self.tally.refused += refused(self.run.refusals())

    def _exit_code(self, session: pytest.Session) -> int:
        if self.tally.mistakes:
            return pytest.ExitCode.USAGE_ERROR
        if self.tally.failed or session.testsfailed > self.tally.blind:
            return pytest.ExitCode.TESTS_FAILED
        if self.tally.blind:
            return UNKNOWN
        if not self.tally.outcomes:
            return pytest.ExitCode.NO_TESTS_COLLECTED
        return pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        if self.controller is None or self.config.option.collectonly:
            return
        if self.run.seen is None:
            self.controller.take_look()
        summary(terminalreporter, self.run, self.tally, ended=self.ended)
        if self.controller.share is not None and not self.tally.outcomes:
            for mistake in self.tally.mistakes:
                terminalreporter.write_line(f"ERROR: {mistake}", red=True)
        last = self.controller.reporter.last
        told = {nodeid for nodeid, _ in self.tally.outcomes}
        untold = last.open if last is not None and not self.ended else ()
        for message in dict.fromkeys(each.message for each in untold if each.nodeid not in told):
            terminalreporter.write_line(f"last seen: {message}", yellow=True)
        judged = self.tally.outcomes or self.tally.mistakes or self.run.seen is not None
        empty = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if empty and not judged and not self.run.contract.rows:
            here = self.config.invocation_params.dir
            terminalreporter.write_line(nothing_to_judge(self.run.contract, here))

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        with _uninterrupted():
            self.run.close()
            if self.controller is not None:
                self.controller.close()
        if self.signals is not None:
            self.signals.restore()


def close(run: Run) -> None:
    """End everything, which takes a second or two and is not interrupted: the run's verdict has been told."""
    with _uninterrupted():
        run.close()


@contextmanager
def _uninterrupted() -> Generator[None, None, None]:
    kept: dict[int, Any] = {}
    with suppress(ValueError):  # of another thread than the main one
        for end in (signal.SIGINT, signal.SIGTERM):
            kept[end] = signal.signal(end, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
