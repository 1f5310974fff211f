"""docs/faults.md has the registry's table, and every public word."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from pytest_celery_health.sandbox.faults import FAULTS
from pytest_celery_health.sandbox.faults.base import BACKEND, BROKER
from pytest_celery_health.sandbox.faults.here import CeleryFaults

PAGE = (Path(__file__).parents[2] / "docs" / "faults.md").read_text()
#: Done to the broker itself.
OF_A_BROKER = ("broker_blocks", "broker_fails_over", "broker_restarts_empty")
NEEDS = {"broker": "", "backend": "", "host": "", "password": "a password"}


def table() -> str:
    """The faults, as the page has them; this text is what to paste."""
    head = "| fault | what is wrong | needs |\n|---|---|---|\n"
    return head + "\n".join(row(name) for name in FAULTS if not name.startswith(f"{BACKEND}_"))


def row(name: str) -> str:
    fault = FAULTS[name]
    needs = ", ".join(filter(None, (NEEDS.get(each, each) for each in fault.needs)))
    return f"| `{name}` | {fault.what} | {needs} |"


def test_the_table_is_the_registry() -> None:
    assert table() in PAGE, table()


def test_the_result_backend_has_those_of_the_way_to_the_broker() -> None:
    assert [name for name in FAULTS if name.startswith(f"{BACKEND}_")] == [
        name.replace(BROKER, BACKEND)
        for name, fault in FAULTS.items()
        if name.startswith(f"{BROKER}_") and name not in OF_A_BROKER
    ]
    assert "`backend_refuses`" in PAGE


def test_every_argument_is_told() -> None:
    words = set(re.findall(r"`(\w+)`", PAGE))
    for fault in FAULTS.values():
        assert set(inspect.signature(fault.act).parameters) - {"world", "_"} <= words, fault.name
    assert set(inspect.signature(CeleryFaults.__call__).parameters) & {"within"} <= words
