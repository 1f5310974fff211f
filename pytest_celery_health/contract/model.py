"""A contract as it was read. Every table's keys are the fields of a dataclass here, or of a check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pytest_celery_health.checks import BeatFresh, Check, ProbeTells
from pytest_celery_health.sandbox.spec import SandboxSpec

#: The target that every contract has.
SANDBOX = "sandbox"


class ContractError(Exception):
    """Everything that is wrong with a contract, a line each. No line holds a password."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        return "\n  ".join([f"{len(self.problems)} mistakes in the contract:", *self.problems])


@dataclass(frozen=True)
class Silence:
    """A row that may fail for a while.

    until: the last day on which it may.
    why: the reason: a ticket, say.
    """

    until: date
    why: str


@dataclass(frozen=True)
class Row:
    """A promise: a check, where it is to hold, and what its breach means.

    on: the targets it is meant for; None is every target that can answer it.
    severity: "warn" reports a breach without failing.
    if_unknown: "warn" softens what could not be seen.
    optional: whether a target that can never answer it passes.
    line: of the table in the contract's file, 1 if it could not be found.
    """

    name: str
    check: Check
    on: tuple[str, ...] | None = None
    severity: Literal["fail", "warn"] = "fail"
    if_unknown: Literal["error", "warn"] = "error"
    optional: bool = False
    silence: Silence | None = None
    owner: str = ""
    runbook: str = ""
    line: int = 1


@dataclass(frozen=True)
class TargetSpec:
    """A live target.

    broker: "app" (the app's own URL), "env:NAME", or a URL without a password; a failover list is joined
        with ";".
    expect_host: the hosts that its brokers may have, "host" or "host:port"; every broker of a failover list
        is compared. A unix socket's host is its path or "localhost"; a transport without hosts is named by
        its scheme ("sqs").
    transport_options: added to the app's own. Text "env:NAME" is taken from the environment.
    ca, cert, key: PEM files for TLS, relative to the contract's folder.
    verify: whether the broker's certificate is verified: it is, unless this says false.
    control_exchange: the app's, else "celery".
    deadline: seconds for a whole look, the contract's unless given.
    """

    name: str
    broker: str
    expect_host: tuple[str, ...] = ()
    transport_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool | None = None
    control_exchange: str | None = None
    deadline: float | None = None


@dataclass(frozen=True)
class Contract:
    """What a project promises.

    path: the file that says so; its folder is where the app and third-party checks are imported from.
    app: Celery's own -A grammar, or a factory "package.module:create_app()"; "" if a hook says it, or if no
        row needs it.
    env: variables that are set for the app.
    deadline: seconds for a whole look.
    declared: whether the file says anything of it: a run without a contract has an empty one.
    without_hook: the complaint about `app` if no hook says what the app is: that it is missing, or that its
        module is. "" if it is well, or not needed.
    """

    path: Path
    app: str = ""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    deadline: float = 5.0
    sandbox: SandboxSpec = field(default_factory=SandboxSpec)
    targets: Mapping[str, TargetSpec] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    declared: bool = True
    without_hook: str = ""

    @property
    def heartbeat(self) -> BeatFresh | None:
        """The row's check that says where beat's heartbeat is, if all such rows agree: what a check that
        names no heartbeat means."""
        found = list(self._heartbeats().values())
        return found[0][1] if len(found) == 1 else None

    def _heartbeats(self) -> dict[tuple[str, str], tuple[str, BeatFresh]]:
        """The first row, and its check, of each place where beat's heartbeat is."""
        found: dict[tuple[str, str], tuple[str, BeatFresh]] = {}
        for row in self.rows:
            check = row.check
            if isinstance(check, BeatFresh) and check.heartbeat:
                found.setdefault((check.heartbeat, check.url), (row.name, check))
        return found

    def completed(self, check: Check) -> Check:
        """`check` with what is said here where the check is silent: beat's heartbeat.

        Raises ValueError when the check cannot be held against that heartbeat, or when it could mean several.
        """
        declared = self.heartbeat
        if isinstance(check, BeatFresh) and not check.heartbeat:
            if several := self._heartbeats().values() if declared is None else ():
                rows = " and ".join(f"{each.heartbeat} (row {name})" for name, each in several)
                raise ValueError(
                    f"beat's heartbeat is not named, and the contract has {rows}:"
                    f' say which, heartbeat="{next(iter(several))[1].heartbeat}"'
                )
            if declared is None:
                return replace(check, heartbeat="ping")
            return replace(check, heartbeat=declared.heartbeat, url=declared.url)
        if isinstance(check, ProbeTells) and check.needs_heartbeat and not check.heartbeat and declared:
            fresh_for = declared.within if check.fresh_for is None else check.fresh_for
            return replace(check, heartbeat=declared.heartbeat, url=declared.url, fresh_for=fresh_for)
        return check

    def deadline_of(self, target: str) -> float:
        """Seconds for a whole look at `target`."""
        spec = self.targets.get(target)
        return self.deadline if spec is None or spec.deadline is None else spec.deadline
