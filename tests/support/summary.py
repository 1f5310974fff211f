"""What pytest's short summary has room for."""

from __future__ import annotations

from _pytest.terminal import _format_trimmed

from pytest_celery_health import Verdict


def at_80_columns(row: str, verdict: Verdict) -> str:
    """The part of a red row's line, in a terminal of 80 columns, that tells why."""
    head = f"FAILED pyproject.toml::{row}[sandbox]"
    return (_format_trimmed(" - {}", verdict.message(), 80 - len(head)) or "").removeprefix(" - ")
