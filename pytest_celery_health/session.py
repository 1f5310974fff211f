"""A health run inside pytest: what is collected, judged, counted, and how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_celery_health.checks import Check
from pytest_celery_health.contract.begin import how_to_begin
from pytest_celery_health.contract.find import find
from pytest_celery_health.contract.model import SANDBOX, Contract, ContractError
from pytest_celery_health.contract.read import read
from pytest_celery_health.durations import seconds
from pytest_celery_health.outcome import CannotTell, NotHealthy, Outcome, Unhealthy
from pytest_celery_health.report import junit
from pytest_celery_health.report.progress import Reporter
from pytest_celery_health.report.terminal import Tally, refused, summary
from pytest_celery_health.rows import OUTCOMES, ContractFile, Row, record
from pytest_celery_health.run import Run, Waiting
from pytest_celery_health.verdict import Verdict

MARKER = "celery_health"
_RUN = pytest.StashKey[Run]()
_VERDICTS = pytest.StashKey[list[tuple[Check, Verdict]]]()
#: Prefix of the folder that the processes of a pytest-xdist run share; its controller's process id follows.
_SHARE = "pytest-celery-health-"
#: Exit code when nothing is unhealthy but something could not be seen; pytest's own end at 5 or 6.
UNKNOWN = 6


def start(config: pytest.Config) -> None:
    """Read the contract and make this a health run.

    Raises pytest.UsageError for a wrong contract, target or option.
    """
    run = _make_run(config)
    config.stash[_RUN] = run
    config.pluginmanager.register(HealthSession(config, run), "celery_health_session")


def run_of(config: pytest.Config) -> Run:
    """The run of this process; in an ordinary run one on the sandbox, made when first asked for."""
    if _RUN not in config.stash:
        config.stash[_RUN] = run = _make_run(config)
        config.add_cleanup(partial(_close, run))
    return config.stash[_RUN]


def _make_run(config: pytest.Config) -> Run:
    hook = _app_hook(config)
    try:
        contract = _read_contract(config, app_from_hook=bool(hook))
    except ContractError as error:
        raise pytest.UsageError(str(error)) from error
    name = config.getoption("celery_health_target") or SANDBOX
    if name != SANDBOX and name not in contract.targets:
        declared = ", ".join([SANDBOX, *contract.targets])
        raise pytest.UsageError(
            f"--celery-health-target={name}: {contract.path.name} declares no"
            f" [tool.celery-health.target.{name}] (declared: {declared})"
        )
    return Run(
        contract,
        name,
        Waiting(
            _duration(config, "wait", 0.0),
            _duration(config, "interval", 5.0),
        ),
        hook,
        tuple(str(config.rootpath / path) for path in config.getini("pythonpath")),
        share=_shared_folder(config),
    )


def _duration(config: pytest.Config, name: str, default: float) -> float:
    text = config.getoption(f"celery_health_{name}")
    if text is None:
        return default
    try:
        return seconds(float(text))
    except ValueError:
        pass
    try:
        return seconds(text)
    except ValueError as error:
        raise pytest.UsageError(f"--celery-health-{name}: {error}") from error


def _read_contract(config: pytest.Config, *, app_from_hook: bool) -> Contract:
    named = config.getoption("celery_health_contract")
    here = config.invocation_params.dir
    if named:
        return read(here / named, app_from_hook=app_from_hook)
    paths = [here]
    if config.args_source == pytest.Config.ArgsSource.ARGS:
        paths = [here / arg.split("::")[0] for arg in config.args]
    found = find(paths, here)
    if found is not None:
        return read(found, app_from_hook=app_from_hook)
    return Contract(config.rootpath / "pyproject.toml")


def _app_hook(config: pytest.Config) -> str:
    impls = config.hook.pytest_celery_health_app.get_hookimpls()
    if not impls:
        return ""
    code = impls[-1].function.__code__
    return f"{code.co_filename}:{code.co_name}"


def _shared_folder(config: pytest.Config) -> Path | None:
    workerinput = getattr(config, "workerinput", None)
    folder = None if workerinput is None else workerinput.get("celery_health_share")
    return None if folder is None else Path(folder)


class HealthSession:
    """The hooks of a health run."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self.config = config
        self.run = run
        self.tally = Tally()
        self.is_worker = hasattr(config, "workerinput")
        self.share: Path | None = None
        self.foreign: list[Row] = []
        self.terminated = False
        self._undo: list[Any] = []
        self.reporter = Reporter(config)
        run.progress = self.reporter
        self._find_modules()
        if not self.is_worker:
            self._end_on_sigterm()

    def _find_modules(self) -> None:
        """Without a test module of its own the project would not be importable."""
        root = str(self.run.contract.path.parent)
        if root not in sys.path:
            sys.path.insert(0, root)
            self._undo.append(lambda: sys.path.remove(root))

    def _end_on_sigterm(self) -> None:
        """CI systems cancel with SIGTERM, on which pytest runs no finalizer: end as on Ctrl-C."""
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return

        def terminate(*_: object) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self.terminated = True
            pytest.exit("ended by SIGTERM", returncode=pytest.ExitCode.INTERRUPTED)

        with suppress(ValueError):
            signal.signal(signal.SIGTERM, terminate)
            self._undo.append(lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))

    @pytest.hookimpl(trylast=True)
    def pytest_report_header(self) -> list[str]:
        contract = self.run.contract
        rows = f"{len(contract.rows)} row{'' if len(contract.rows) == 1 else 's'}"
        where = contract.path if contract.rows or contract.app else "no contract"
        with suppress(ValueError):
            where = contract.path.relative_to(self.config.invocation_params.dir) if contract.rows else where
        return [f"celery-health: {self.run.target_name}, {rows} of {where}"]

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        if self.share is None:
            self.share = _make_share()
        node.workerinput["celery_health_share"] = str(self.share)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.tally.join(getattr(node, "workeroutput", {}).get("celery_health", {}))

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> ContractFile | None:
        if file_path.resolve() != self.run.contract.path.resolve() or not self.run.contract.rows:
            return None
        collector: ContractFile = ContractFile.from_parent(parent, path=file_path)
        collector.run = self.run
        return collector

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        self._refuse_decorated_classes()
        self._add_rows(session, items)
        kept: dict[str, pytest.Item] = {}
        dropped: list[pytest.Item] = []
        for item in items:
            if isinstance(item, Row):
                if item.foreign:
                    self.foreign.append(item)
                    dropped.append(item)
                else:
                    kept.setdefault(item.nodeid, item)
            elif item.get_closest_marker(MARKER) is not None:
                kept[item.nodeid] = item
            else:
                dropped.append(item)
        if dropped:
            self.config.hook.pytest_deselected(items=dropped)
        items[:] = list(kept.values())

    def _add_rows(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """The rows, unless an argument names their file, a folder brought it, or only tests are named.

        Naming the file as one more argument would do, but before 9.0 pytest loses a folder's tests when a
        file in it is named as well.
        """
        contract = self.run.contract
        here = self.config.invocation_params.dir
        named = {(here / arg.split("::")[0]).resolve() for arg in self.config.args}
        if all("::" in arg for arg in self.config.args):
            return
        if not contract.rows or contract.path.resolve() in named or any(isinstance(i, Row) for i in items):
            return
        collector: ContractFile = ContractFile.from_parent(session, path=contract.path)
        collector.run = self.run
        items.extend(session.genitems(collector))

    def _refuse_decorated_classes(self) -> None:
        """`@mark.celery_health(SomeClass)` without parentheses marks the class and swallows the test."""
        classes = [Check]
        while classes:
            cls = classes.pop()
            classes += cls.__subclasses__()
            if any(mark.name == MARKER for mark in cls.__dict__.get("pytestmark", ())):
                del cls.pytestmark  # type: ignore[attr-defined]
                raise pytest.UsageError(
                    f"@pytest.mark.celery_health({cls.__name__}) marks the class, and its test is lost:"
                    f" write {cls.__name__}(...)"
                )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        mistakes = list(_mistakes(session.items))
        if mistakes:
            raise pytest.UsageError("\n".join(mistakes))
        for item in session.items:
            if isinstance(item, Row):
                self.run.plan(item.row.check, must_hold=item.must_hold)
                continue
            for check in _checks(item):
                self.run.plan(check)
        if not self.config.option.collectonly and session.items:
            self.run.begin()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if self.config.option.collectonly:
            return
        if not self.run.live and not self.run.has_app and self.run.needs_target:
            raise pytest.UsageError(f"no contract says what the app is.\n{how_to_begin()}")
        if not self.run.live or self.is_worker:
            return
        if session.items or self.share is not None:
            try:
                self.run.target()
            except ContractError as error:
                raise pytest.UsageError(str(error)) from error
            except Exception:  # noqa: BLE001 - told by each row, as unknown
                return

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        checks = [] if isinstance(item, Row) else _checks(item)
        verdicts = [(check, self.run.verdict(check)) for check in checks]
        item.stash[_VERDICTS] = verdicts
        for check, verdict in verdicts:
            record(item, Outcome.of(type(check).__name__, verdict))
        if not any(verdict.unhealthy for _, verdict in verdicts):
            for _, verdict in verdicts:
                if verdict.unknown:
                    raise CannotTell(verdict.message(), verdict)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        for _, verdict in item.stash.get(_VERDICTS, []):
            if verdict.unhealthy:
                raise Unhealthy(verdict.message(), verdict)
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
        ended = call.when == "call" or (call.when == "setup" and not report.passed)
        if ended:
            report.__dict__["celery_health"] = [outcome.plain() for outcome in item.stash.get(OUTCOMES, [])]
            report.__dict__["celery_health_blind"] = isinstance(error, CannotTell)
        return report

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        if report.when != "call" or not report.passed:
            return None
        softened = {outcome["soft"] for outcome in getattr(report, "celery_health", [])}
        if "warned" in softened:
            return "warned", "w", ("WARNED", {"yellow": True})
        if "silenced" in softened:
            return "silenced", "z", ("SILENCED", {"yellow": True})
        return None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcomes = [Outcome(**plain) for plain in getattr(report, "celery_health", [])]
        self.tally.add(report.nodeid, outcomes)
        if report.failed:
            if getattr(report, "celery_health_blind", False):
                self.tally.blind += 1
                junit.evidence_first(self.config, report)
            else:
                self.tally.failed += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self._count()
        if self.is_worker:
            self.config.workeroutput["celery_health"] = self.tally.shipped()  # type: ignore[attr-defined]
            return
        decided = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
        if exitstatus in decided and not self.config.option.collectonly:
            session.exitstatus = self._exit_code(session)
        if self.terminated:
            # Only now: of an unknown code pytest prints no summary.
            session.exitstatus = 128 + signal.SIGTERM

    def _count(self) -> None:
        for look in self.run.looks:
            self.tally.looks += 1
            self.tally.received += look.received
            self.tally.swept += look.swept
        self.tally.foreign += [row.nodeid for row in self.foreign]
        if self.run.sandbox is not None:
            self.tally.broker = self.run.sandbox.broker
            self.tally.notes += self.run.sandbox.notes
        self.tally.refused += refused(self.run.refusals())

    def _exit_code(self, session: pytest.Session) -> int:
        if self.tally.failed or session.testsfailed > self.tally.blind:
            return pytest.ExitCode.TESTS_FAILED
        if self.tally.blind:
            return UNKNOWN
        if not self.tally.outcomes:
            return pytest.ExitCode.NO_TESTS_COLLECTED
        return pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        if self.config.option.collectonly:
            return
        if self.run.seen is None and self.share is not None:
            self.run.take_shared_look(self.share)
        summary(terminalreporter, self.run, self.tally)
        if exitstatus not in (0, 1, 5, UNKNOWN) and self.reporter.last is not None:
            for message in self.reporter.last.open:
                terminalreporter.write_line(f"last seen: {message}", yellow=True)
        if not self.tally.outcomes and not self.run.contract.rows and self.run.seen is None:
            terminalreporter.write_line(how_to_begin())

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        for undo in reversed(self._undo):
            with suppress(ValueError):
                undo()
        self._undo.clear()
        _close(self.run)
        if self.share is not None:
            shutil.rmtree(self.share, ignore_errors=True)


def _make_share() -> Path:
    """A private folder for the processes of this run; those of runs that were killed are removed."""
    for old in Path(tempfile.gettempdir()).glob(f"{_SHARE}*-*"):
        with suppress(ValueError, PermissionError):
            try:
                os.kill(int(old.name.removeprefix(_SHARE).partition("-")[0]), 0)
            except ProcessLookupError:
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_SHARE}{os.getpid()}-"))


def _close(run: Run) -> None:
    """End everything, which takes a second or two and is not interrupted: the run's verdict has been told."""
    kept: dict[int, Any] = {}
    with suppress(ValueError):  # of another thread than the main one
        for end in (signal.SIGINT, signal.SIGTERM):
            kept[end] = signal.signal(end, signal.SIG_IGN)
    try:
        run.close()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _checks(item: pytest.Item) -> Iterator[Check]:
    for mark in reversed(list(item.iter_markers(MARKER))):
        yield from mark.args


def _mistakes(items: Iterable[pytest.Item]) -> Iterator[str]:
    """What is wrong with the markers, each told once though its class or parameters make many items of it."""
    told: set[int] = set()
    for item in items:
        for mark in item.iter_markers(MARKER):
            wrong = [repr(arg) for arg in mark.args if not isinstance(arg, Check)]
            wrong += [f"{name}={value!r}" for name, value in mark.kwargs.items()]
            if wrong and id(mark) not in told:
                told.add(id(mark))
                yield (
                    f"{item.nodeid}: @pytest.mark.celery_health takes checks, not {', '.join(wrong)}:"
                    " write WorkersAnswer(at_least=2), say"
                )
