"""Findings, verdicts, and `judge`: what a check makes of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_celery_health.facts import Snapshot, Unseen

if TYPE_CHECKING:
    from pytest_celery_health.checks.base import Check

Table: TypeAlias = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a check looked at. `ok` is None when it could not be seen; then `seen` says why, and `never`
    whether this kind of target cannot show it at all.

    `subject seen; wanted ...` reads as a sentence: "billing", "holds 1,204 ready messages",
    "below 1,000". Further lines of `seen` are a log's, say: told once, below the sentence. `figures` are
    the raw numbers, for reports. A `warning` is bad, told, and fails nothing.
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
        seen = self.seen.partition("\n")[0]
        if self.ok is None:
            text = f"cannot tell: {seen}"
            if self.subject and self.subject not in seen:
                text = f"cannot tell: {self.subject}: {seen}"
        else:
            text = f"{self.subject} {seen}"
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
    def details(self) -> tuple[str, ...]:
        """What stands behind the first line of the findings that made it, each once."""
        rests = (finding.seen.partition("\n")[2] for finding in self.decisive)
        return tuple(dict.fromkeys(filter(None, rests)))

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
    """What `check` makes of `seen`. No broker, no Celery, no pytest: also the way to test a check.

    Raises what the check raises, and TypeError when it yields what no report can tell.
    """
    findings = tuple(_yielded("judge", check.judge(seen), "a Finding"))
    for finding in findings:
        _refuse_untold(finding)
    rows = tuple(_yielded("table", check.table(seen), "a row of text"))
    for row in rows:
        told = isinstance(row, Sequence) and not isinstance(row, str) and all(isinstance(c, str) for c in row)
        if not told or len(row) != len(rows[0]):
            raise TypeError(
                f"table yielded {row!r:.80}; wanted a row of text, with as many cells as the first"
            )
    return Verdict(findings, tuple(map(tuple, rows)))


def _yielded(method: str, found: Any, each: str) -> Iterable[Any]:
    if not isinstance(found, Iterable) or isinstance(found, str):
        raise TypeError(f"{method} returned {found!r:.80}; yield {each} at a time")
    return found


def _refuse_untold(finding: Any) -> None:
    if not isinstance(finding, Finding):
        raise TypeError(f"judge yielded {finding!r:.80}; wanted a Finding")
    if not (finding.ok is None or isinstance(finding.ok, bool)):
        raise TypeError(f"a Finding's ok is {finding.ok!r:.80}; wanted True, False or None")
    for name in ("subject", "seen", "wanted", "hint"):
        if not isinstance(value := getattr(finding, name), str):
            raise TypeError(f"a Finding's {name} is {value!r:.80}; wanted text")
    for key, value in finding.figures.items():
        if not isinstance(key, str) or not isinstance(value, (int, float, str)):
            raise TypeError(
                f"a Finding's figures have {key!r:.80} = {value!r:.80}; wanted numbers or text by name"
            )
