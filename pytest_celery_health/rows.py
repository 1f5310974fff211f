"""The contract's rows as pytest items: `pyproject.toml::billing[staging]`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_celery_health.contract.model import SANDBOX
from pytest_celery_health.contract.model import Row as ContractRow
from pytest_celery_health.contract.values import did_you_mean
from pytest_celery_health.outcome import Outcome, raise_for
from pytest_celery_health.run import Run
from pytest_celery_health.verdict import Verdict

OUTCOMES = pytest.StashKey[list[Outcome]]()


class ContractFile(pytest.File):
    """The TOML file that holds the contract."""

    run: Run

    def collect(self) -> Iterator[Row]:
        for row in self.run.contract.rows:
            name = id_of(row, self.run)
            # Said as text, so that pytest finds the brackets as it finds them in its own cache.
            yield Row.from_parent(self, name=name, nodeid=f"{self.nodeid}::{name}", row=row)


def id_of(row: ContractRow, run: Run) -> str:
    """Its name with the run's target if it is meant for that, else with the first that it is meant for."""
    target = run.target_name
    if row.on is None:
        target = SANDBOX if row.check.needs_sandbox else target
    elif target not in row.on:
        target = row.on[0]
    return f"{row.name}[{target}]"


def refuse_unknown(args: Iterable[str], here: Path, run: Run) -> None:
    """Raise pytest.UsageError for a node id of the contract's file that is none of its rows."""
    contract = run.contract
    ids = [id_of(row, run) for row in contract.rows]
    known = {*ids, *(row.name for row in contract.rows)}
    for arg in args:
        file, colons, name = arg.partition("::")
        if not colons or name in known or (here / file).resolve() != contract.path.resolve():
            continue
        row, _, target = name.removesuffix("]").partition("[")
        mine = next((each for each in ids if each.startswith(f"{row}[")), "")
        if mine and target == SANDBOX:
            why = f"in this run it is {mine}; leave out --celery-health-target"
        elif mine and target in contract.targets:
            why = f"in this run it is {mine}; add --celery-health-target={target}"
        else:
            near = did_you_mean(name, ids) or f"; rows: {', '.join(ids) or 'none'}"
            why = f"{file} has no such row{near}"
        raise pytest.UsageError(f"{arg}: {why}")


class Row(pytest.Item):
    """One row on one target. Unknown is an error of its setup, unhealthy a failure of its call."""

    def __init__(self, *, row: ContractRow, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.row = row
        self.add_marker("celery_health")
        self.extra_keyword_matches.update(filter(None, (row.name, row.owner)))
        self.verdict: Verdict | None = None
        # Plugins ask every failed item for it, such as pytest-docker-tools, which pytest-celery brings.
        self.funcargs: dict[str, object] = {}

    @property
    def run(self) -> Run:
        assert isinstance(self.parent, ContractFile)
        return self.parent.run

    @property
    def foreign(self) -> bool:
        """Whether it is meant for other targets than the run's."""
        return not self.name.endswith(f"[{self.run.target_name}]")

    @property
    def must_hold(self) -> bool:
        return self.row.severity == "fail" and self.row.silence is None

    def setup(self) -> None:
        self.verdict = verdict = self.run.verdict(self.row.check)
        silence = self.row.silence
        context = (
            self.row.owner,
            self.row.runbook,
            f"silenced until {silence.until}: {silence.why}" if silence else "",
        )
        outcome = Outcome.of(self.row.name, verdict, *context, soft=self._soft(verdict))
        if verdict.never and self.row.optional:
            pytest.skip(outcome.message)
        record(self, outcome)
        if outcome.blind:
            raise_for(outcome.message, verdict, self.run.untold(verdict))

    def runtest(self) -> None:
        assert self.verdict is not None
        outcome = self.stash[OUTCOMES][-1]
        if outcome.fails:
            raise_for(outcome.message, self.verdict, self.run.untold(self.verdict))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self.row.line, self.name

    def _soft(self, verdict: Verdict) -> str:
        if self.row.silence is not None:
            return "silenced"
        if self.row.severity == "warn" or (verdict.unknown and self.row.if_unknown == "warn"):
            return "warned"
        return ""


def record(item: pytest.Item, outcome: Outcome) -> None:
    """Keep `outcome` for the item's report; its figures, and the evidence of what fails nothing, are JUnit's
    properties."""
    item.stash.setdefault(OUTCOMES, []).append(outcome)
    item.user_properties.extend(outcome.figures.items())
    item.user_properties.extend((f"celery_health.{how}", evidence) for how, evidence in outcome.softened)
