"""Findings, verdicts, and `judge`: what a check makes of a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pytest_celery_health.facts import Snapshot, Unseen

if TYPE_CHECKING:
    from pytest_celery_health.checks.base import Check

Table: TypeAlias = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a check looked at. `ok` is None when it could not be seen; then `seen` says why, and `never`
    whether this kind of target cannot show it at all.

    `subject seen; wanted ...` reads as a sentence: "billing", "holds 1,204 ready messages",
    "below 1,000". `figures` are the raw numbers, for reports. A `warning` is bad, told, and fails nothing.
    """

    ok: bool | None
    subject: str
    seen: str
    wanted: str = ""
    hint: str = ""
    figures: Mapping[str, float | str] = field(default_factory=dict)
    never: bool = False
    warning: bool = False

    @classmethod
    def unseen(cls, subject: str, why: Unseen, *, hint: str = "") -> Finding:
        return cls(None, subject, why.why, hint=hint, never=why.never)

    def line(self, *context: str) -> str:
        """The finding in one line, evidence first; `context` joins the hint in brackets."""
        if self.ok is None:
            text = f"cannot tell: {self.seen}"
            if self.subject and self.subject not in self.seen:
                text = f"cannot tell: {self.subject}: {self.seen}"
        else:
            text = f"{self.subject} {self.seen}"
            if self.wanted:
                text += f"; wanted {self.wanted}"
        notes = "; ".join(note for note in (self.hint, *context) if note)
        return f"{text} ({notes})" if notes else text


@dataclass(frozen=True, slots=True)
class Verdict:
    """A check's findings. Unhealthy if any is bad, else unknown if any could not be seen, else healthy.

    A check that found nothing to say about is unknown. `table` is what the check shows beside its findings,
    the first row its head.
    """

    findings: tuple[Finding, ...]
    table: Table = ()

    @property
    def bad(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.ok is False and not finding.warning)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.warning)

    @property
    def blind(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.ok is None)

    @property
    def status(self) -> str:
        """ "unhealthy", "unknown" or "healthy"."""
        if self.bad:
            return "unhealthy"
        return "unknown" if self.blind or not self.findings else "healthy"

    @property
    def healthy(self) -> bool:
        return self.status == "healthy"

    @property
    def unhealthy(self) -> bool:
        return self.status == "unhealthy"

    @property
    def unknown(self) -> bool:
        return self.status == "unknown"

    @property
    def never(self) -> bool:
        """Whether it is unknown because this kind of target cannot answer it at all."""
        return self.unknown and bool(self.blind) and all(finding.never for finding in self.blind)

    @property
    def decisive(self) -> tuple[Finding, ...]:
        """The findings that made the verdict."""
        rest = tuple(finding for finding in self.findings if not finding.warning)
        return self.bad or self.blind or rest or self.findings

    def message(self, *context: str) -> str:
        """The deciding finding in one line, and how many more there are."""
        if not self.findings:
            return "cannot tell: the check found nothing to judge"
        first, *more = self.decisive
        line = first.line(*context)
        return f"{line} (and {len(more)} more)" if more and not self.healthy else line

    def __str__(self) -> str:
        return "\n".join(finding.line() for finding in self.decisive) or self.message()


def judge(check: Check, seen: Snapshot) -> Verdict:
    """What `check` makes of `seen`. No broker, no Celery, no pytest: also the way to test a check."""
    return Verdict(tuple(check.judge(seen)), tuple(tuple(row) for row in check.table(seen)))
