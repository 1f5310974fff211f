"""How a health run judges: what the markers name before the body, and each outcome told and counted."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_celery_health.checks import Check
from pytest_celery_health.collecting import checks_of
from pytest_celery_health.contract.model import ContractError
from pytest_celery_health.outcome import CannotTell, NotHealthy, Outcome, Unhealthy
from pytest_celery_health.processes import Controller
from pytest_celery_health.report import junit
from pytest_celery_health.report.terminal import Tally
from pytest_celery_health.rows import OUTCOMES, Row, record
from pytest_celery_health.run import Run
from pytest_celery_health.verdict import Verdict

_VERDICTS = pytest.StashKey[list[tuple[Check, Verdict]]]()


class Judging:
    """Hooks around each item. What they find goes to `tally`, in the process that reports."""

    def __init__(self, config: pytest.Config, run: Run, tally: Tally, controller: Controller | None) -> None:
        self.config = config
        self.run = run
        self.tally = tally
        self.controller = controller

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if self.config.option.collectonly:
            return
        if self.controller is None:
            return
        # pytest-xdist's controller collects nothing, and so may not know the hook that its processes know.
        blind = self.controller.share is not None and bool(self.run.lacks_app)
        controls = self.run.live and not blind and (session.items or self.controller.share is not None)
        if controls or (session.items and self.run.needs_sandbox):
            try:
                self.run.target()
            except ContractError as error:
                raise pytest.UsageError(str(error)) from error
            except pytest.exit.Exception:  # SIGTERM's
                raise
            except Exception:  # noqa: BLE001 - told by each row, as unknown
                return

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        item.stash[OUTCOMES] = []  # it may be run once more, by pytest-rerunfailures say
        checks = [] if isinstance(item, Row) else checks_of(item)
        verdicts = [(check, self.run.verdict(check)) for check in checks]
        item.stash[_VERDICTS] = verdicts
        for check, verdict in verdicts:
            record(item, Outcome.of(type(check).__name__, verdict))
        if not any(verdict.unhealthy for _, verdict in verdicts):
            for _, verdict in verdicts:
                if verdict.unknown:
                    raise CannotTell(verdict.message(), verdict, self.run.untold(verdict))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        for _, verdict in item.stash.get(_VERDICTS, []):
            if verdict.unhealthy:
                raise Unhealthy(verdict.message(), verdict, self.run.untold(verdict))
        yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        error = None if call.excinfo is None else call.excinfo.value
        if isinstance(error, NotHealthy) and call.excinfo is not None:
            if isinstance(item, Row) or item.stash.get(_VERDICTS, []):
                report.longrepr = call.excinfo.getrepr(style="value")
            crash = getattr(report.longrepr, "reprcrash", None)
            if crash is not None:
                crash.message = error.line
        if call.when != "setup" or not report.passed:
            report.__dict__["celery_health"] = [outcome.plain() for outcome in item.stash.get(OUTCOMES, [])]
            report.__dict__["celery_health_blind"] = isinstance(error, CannotTell)
            item.stash[OUTCOMES] = []
        return report

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, str | tuple[str, dict[str, bool]]] | None:
        if report.when != "call":
            return None
        if report.failed and getattr(report, "celery_health_blind", False):
            return "error", "E", "ERROR"  # before 8.1 the short summary takes no colour with it
        if not report.passed:
            return None
        softened = {outcome["soft"] for outcome in getattr(report, "celery_health", [])}
        if "warned" in softened:
            return "warned", "w", ("WARNED", {"yellow": True})
        if "silenced" in softened:
            return "silenced", "z", ("SILENCED", {"yellow": True})
        return None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome == "rerun":  # type: ignore[comparison-overlap]  # pytest-rerunfailures' own
            return
        outcomes = [Outcome(**plain) for plain in getattr(report, "celery_health", [])]
        self.tally.add(report.nodeid, outcomes)
        junit.tell_softened(self.config, report, outcomes)
        if report.failed:
            if getattr(report, "celery_health_blind", False):
                self.tally.blind += 1
                junit.tell_unknown(self.config, report)
            else:
                self.tally.failed += 1
