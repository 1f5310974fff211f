"""What judging leaves for the reports: plain data that crosses pytest-xdist's pipe, and two exceptions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from pytest_celery_health.verdict import Table, Verdict


@dataclass(frozen=True)
class Outcome:
    """One judged check. `soft` is why a bad verdict does not fail: "warned", "silenced" or "".

    `table` is the check's own, its first row the head. `warnings` are told and fail nothing.
    """

    subject: str
    status: str
    message: str
    soft: str = ""
    figures: dict[str, float | str] = field(default_factory=dict)
    table: Table = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, subject: str, verdict: Verdict, *context: str, soft: str = "") -> Outcome:
        figures: dict[str, float | str] = {}
        for finding in verdict.findings:
            figures.update({str(key): _plain(value) for key, value in finding.figures.items()})
        soft = "" if verdict.healthy else soft
        warnings = tuple(finding.line() for finding in verdict.warnings)
        return cls(subject, verdict.status, verdict.message(*context), soft, figures, verdict.table, warnings)

    @property
    def fails(self) -> bool:
        return self.status == "unhealthy" and not self.soft

    @property
    def blind(self) -> bool:
        return self.status == "unknown" and not self.soft

    @property
    def softened(self) -> tuple[tuple[str, str], ...]:
        """What is told and fails nothing: "warned" or "silenced", and the evidence."""
        own = ((self.soft, self.message),) if self.soft else ()
        return (*own, *(("warned", warning) for warning in self.warnings))

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def _plain(value: float | str) -> float | str:
    """`value` as its built-in type: pytest-xdist's pipe takes no subclass, such as NumPy's or an enum's."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, int) else float(value)


class NotHealthy(Exception):
    """A verdict that does not let a test go on. Its first line is the evidence, its last are `details`."""

    def __init__(self, line: str, verdict: Verdict, details: Iterable[str] = ()) -> None:
        self.line = line
        self.verdict = verdict
        rest = [finding.line() for finding in verdict.decisive[1:]]
        super().__init__("\n".join([line, *rest, *details]))


class Unhealthy(NotHealthy, AssertionError):
    """A promise is broken."""


class CannotTell(NotHealthy):
    """Whether the promise holds could not be seen."""


def raise_for(line: str, verdict: Verdict, details: Iterable[str] = ()) -> None:
    """Raise Unhealthy or CannotTell unless `verdict` is healthy."""
    __tracebackhide__ = True
    if verdict.unhealthy:
        raise Unhealthy(line, verdict, details)
    if verdict.unknown:
        raise CannotTell(line, verdict, details)
