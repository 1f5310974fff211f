"""What a health run collects: the contract's rows and the marked tests, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_celery_health.app_hooks import app_hooks
from pytest_celery_health.checks import Check
from pytest_celery_health.contract.begin import no_app
from pytest_celery_health.contract.locate import shown
from pytest_celery_health.contract.model import ContractError
from pytest_celery_health.rows import ContractFile, Row
from pytest_celery_health.run import Run

MARKER = "celery_health"


class Collecting:
    """Hooks that add the rows, drop the rest of the suite, and plan what is to be looked at."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self.config = config
        self.run = run
        #: Rows that are meant for other targets.
        self.foreign: list[Row] = []
        # Without a test module of its own the project would not be importable.
        root = str(run.contract.path.parent)
        self._added = "" if root in sys.path else root
        if self._added:
            sys.path.insert(0, root)

    @pytest.hookimpl(trylast=True)
    def pytest_report_header(self) -> list[str]:
        contract = self.run.contract
        rows = f"{len(contract.rows)} row{'' if len(contract.rows) == 1 else 's'}"
        where = contract.path if contract.rows or contract.app else "no contract"
        with suppress(ValueError):
            where = contract.path.relative_to(self.config.invocation_params.dir) if contract.rows else where
        lines = [f"celery-health: {self.run.target_name}, {rows} of {where}"]
        if self.run.hooks:
            files = [shown(Path(hook.rpartition(":")[0])) for hook in self.run.hooks]
            lines.append(f"celery-health: app from the hook of {', '.join(files)}")
        elif contract.app:
            lines.append(f"celery-health: app {contract.app}, from {shown(contract.path)}")
        return lines

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> ContractFile | None:
        if file_path.resolve() != self.run.contract.path.resolve() or not self.run.contract.rows:
            return None
        collector: ContractFile = ContractFile.from_parent(parent, path=file_path)
        collector.run = self.run
        return collector

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
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

    # Before pytest-xdist's, which tells its controller what is to be run.
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        mistakes = [*_decorated_classes(), *_mistakes(session.items)]
        try:
            self.run.hooks = app_hooks(self.config)
        except pytest.UsageError as error:
            mistakes.append(str(error))
        else:
            mistakes += filter(None, [self.run.lacks_app])
        if mistakes:
            self._refuse(session, "\n".join(mistakes))
        ambiguous: list[str] = []
        for item in session.items:
            try:
                if isinstance(item, Row):
                    self.run.plan(item.row.check, item.nodeid, must_hold=item.must_hold)
                    continue
                for check in checks_of(item):
                    self.run.plan(check, item.nodeid)
            except ValueError as error:
                ambiguous.append(f"{item.nodeid}: {error}")
        if ambiguous:
            self._refuse(session, "\n".join(ambiguous))
        if self.config.option.collectonly:
            return
        if not self.run.live and not self.run.has_app and self.run.needs_target:
            self._refuse(session, no_app(self.run.contract, self.config.invocation_params.dir))
        if session.items:
            self.run.begin()

    def _refuse(self, session: pytest.Session, why: str) -> None:
        """End the run for a mistake of its user's. A process of pytest-xdist has its controller do so."""
        if not hasattr(self.config, "workerinput"):
            raise pytest.UsageError(why)
        self.run.mistake = ContractError([why])
        session.items.clear()

    def pytest_unconfigure(self) -> None:
        if self._added:
            with suppress(ValueError):
                sys.path.remove(self._added)
            self._added = ""


def _decorated_classes() -> Iterator[str]:
    """`@mark.celery_health(SomeClass)` without parentheses marks the class and swallows the test."""
    classes = [Check]
    while classes:
        cls = classes.pop()
        classes += cls.__subclasses__()
        if any(mark.name == MARKER for mark in cls.__dict__.get("pytestmark", ())):
            del cls.pytestmark  # type: ignore[attr-defined]
            name = cls.__name__
            lost = f"@pytest.mark.celery_health({name}) marks the class, and its test is lost"
            yield f"{lost}: write {name}(...)"


def checks_of(item: pytest.Item) -> Iterator[Check]:
    """The checks of a test's markers, the outermost first."""
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
