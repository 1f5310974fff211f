"""What a check is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pytest_celery_health.durations import seconds
from pytest_celery_health.facts import Ask, Snapshot
from pytest_celery_health.verdict import Finding


@dataclass(frozen=True)
class Check(ABC):
    """A promise about a Celery system. Subclass it as a frozen dataclass whose fields are the keys of a
    contract's row; the docstring's first line is its title.

    Fields are keyword-only but for one subject, which a row's name fills when the row leaves it out.
    `__post_init__` raises ValueError, in words for the contract's author, on an impossible value.
    """

    #: Field that takes the row's name when the row leaves it out.
    subject: ClassVar[str] = ""
    #: Whether it starts, sends or breaks something, which is done in the sandbox only.
    needs_sandbox: ClassVar[bool] = False

    def _in_seconds(self, *fields: str) -> None:
        """Make these durations seconds, None excepted. Raises ValueError that names the field."""
        for name in fields:
            value = getattr(self, name)
            if value is None:
                continue
            try:
                number = seconds(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            object.__setattr__(self, name, number)

    @abstractmethod
    def asks(self) -> Iterable[Ask]:
        """What has to be looked at, and no more."""

    @abstractmethod
    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        """Findings from what was seen. Pure: no I/O, no clock but `seen.now`."""

    def table(self, seen: Snapshot) -> Iterable[Sequence[str]]:
        """What a reader sees beside the findings; where all is well, without a warning, under -v only.

        Rows of as many cells as the first, their head. Pure, too.
        """
        del seen
        return ()
