"""What the processes of a pytest-xdist run have in common: one sandbox, one look, one tally, one end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from pytest_celery_health.report.progress import Reporter
from pytest_celery_health.report.terminal import Tally
from pytest_celery_health.run import Latest, Run
from pytest_celery_health.sandbox import keeper
from pytest_celery_health.sandbox.client import Client
from pytest_celery_health.share import Share

_INPUT = "celery_health_share"
_OUTPUT = "celery_health"
#: Seconds between two glances at how the wait of another process stands.
_GLANCE = 0.1
#: Seconds that interrupted workers get to tear their tests down before pytest-xdist ends them.
_END = 5.0
_TICK = 0.02


def share_of(config: pytest.Config) -> Share | None:
    """What the controller of this process made; None in a run of one process."""
    folder = getattr(config, "workerinput", {}).get(_INPUT)
    return None if folder is None else Share(Path(folder))


class Controller:
    """Hooks of the process that reports, alone or not.

    The folder that its workers share is a keeper's, and so goes with it, also when it is killed.
    """

    def __init__(self, config: pytest.Config, run: Run, tally: Tally, reporter: Reporter) -> None:
        self.config = config
        self.run = run
        self.tally = tally
        self.reporter = reporter
        self.share: Share | None = None
        self._keeper: Client | None = None
        self._following: _Following | None = None
        self._nodes: list[Any] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        if self.share is None:
            self._keeper = Client.start()
            folder = self._keeper.folder / "share"
            folder.mkdir(mode=0o700)
            self.share = Share(folder)
            if self.run.waiting.up_to:
                self._following = _Following(self.config, self.share, self.reporter)
                self.config.pluginmanager.register(self._following, "celery_health_following")
        node.workerinput[_INPUT] = str(self.share.folder)
        self._nodes.append(node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        if node in self._nodes:  # of one that was interrupted pytest-xdist tells twice
            self._nodes.remove(node)
            self.tally.join(getattr(node, "workeroutput", {}).get(_OUTPUT, {}))

    def end(self) -> None:
        """Have the workers that are left tidy up and end, and count what they counted.

        pytest-xdist alone would let them go on with their tests for 5 seconds.
        """
        if self.share is not None:
            over = time.monotonic() + _END
            told: set[int] = set()
            while time.monotonic() < over and not all(map(_has_ended, self._nodes)):
                new = self.share.workers() - told  # which may be those that had yet to begin
                for pid in new.intersection(keeper.descendants(os.getpid()) if new else ()):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)  # SIGINT is ignored where a shell started us behind it
                told |= new
                time.sleep(_TICK)
            for node in [*self._nodes]:
                self.pytest_testnodedown(node)
        if self._following is not None:
            self._following.stop()

    def take_look(self) -> None:
        """Have the run show what a worker saw last."""
        latest: Latest | None = None if self.share is None else self.share.seen()
        if latest is not None:
            self.run.seen = latest.look

    def close(self) -> None:
        """Remove the folder."""
        if self._keeper is not None:
            keeper_, self._keeper = self._keeper, None
            keeper_.leave()


def _has_ended(node: Any) -> bool:
    """Whether a worker has told what it counted, or can tell no more."""
    channel = getattr(node, "channel", None)
    if channel is None or hasattr(node, "workeroutput"):
        return True
    try:
        channel.waitclose(0)
    except channel.TimeoutError:
        return False
    except (EOFError, channel.RemoteError):
        pass
    return True


class _Following:
    """Tells how the wait of another process stands, while pytest's own thread waits for reports."""

    def __init__(self, config: pytest.Config, share: Share, reporter: Reporter) -> None:
        self._config = config
        self._share = share
        self._reporter = reporter
        self._told: Latest | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="celery-health progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        over = False
        while not over:
            over = self._over.wait(_GLANCE)
            self._glance()

    def _glance(self) -> None:
        with self._lock:
            latest: Latest | None = self._share.seen()
            if latest is not None and latest is not self._told and latest.progress is not None:
                self._reporter(latest.progress)
            self._told = latest

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Generator[None, object, object]:
        with self._reporter.aside() if self._config.option.verbose > 0 else nullcontext():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self) -> Generator[None, object, object]:
        self._glance()  # the wait that this test may have waited for is told first
        with self._reporter.aside():
            return (yield)


class Worker:
    """Hooks of a process that runs tests for the controller: it counts for it, and ends with it."""

    def __init__(self, config: pytest.Config, tally: Tally, share: Share) -> None:
        self.config = config
        self.tally = tally
        self._interrupted = False
        keeper.end_with_parent()
        if not share.folder.exists():  # the controller was killed before the kernel was told
            os._exit(1)
        with suppress(ValueError):  # of another thread than the main one
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._interrupt)
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._interrupt)
                share.enter()

    def _interrupt(self, *_: object) -> None:
        """A terminal's Ctrl-C comes here, and then the controller's SIGTERM, which would cut short what the
        first has begun to tear down."""
        if not self._interrupted:
            self._interrupted = True
            raise KeyboardInterrupt

    def pytest_runtest_logstart(self) -> None:
        self._interrupted = False

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self.config.workeroutput[_OUTPUT] = self.tally.shipped()  # type: ignore[attr-defined]
