"""docs/drills.md has the catalogue's table, and every public word of a drill."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

from pytest_celery_health.sandbox.drills.crew import Drill, Drills
from pytest_celery_health.sandbox.drills.ends import ENDS, POOLS, End
from pytest_celery_health.sandbox.drills.shutdown import Fates, Shutdown
from tests.drills.conftest import REPO

PAGE = (REPO / "docs" / "drills.md").read_text()
OLDEST = "5.4"
NEWEST = "5.7"


def table() -> str:
    """The ends whose signals are known, as the page has them; this text is what to paste."""
    head = "| end | what happens | prefork | solo, threads | ends the worker |\n|---|---|---|---|---|\n"
    return head + "\n".join(row(end) for end in ENDS.values())


def row(end: End) -> str:
    broken = ", ".join(pool for pool in POOLS if pool in end.breaks) if end.breaks != POOLS else "always"
    cells = [f"`{end.name}`", end.what, sent(end, "prefork"), sent(end, "solo"), broken]
    assert sent(end, "solo") == sent(end, "threads")
    return f"| {' | '.join(cells)} |"


def sent(end: End, pool: str) -> str:
    if pool in end.impossible:
        return "refused"
    if end.logged:
        return "none"
    newest, oldest = end.signals_of(pool, NEWEST), end.signals_of(pool, OLDEST)
    if not newest:
        return "see below"
    return newest if newest == oldest else f"{newest}; {OLDEST}: {oldest}"


def test_the_table_is_the_catalogues() -> None:
    assert table() in PAGE


def test_every_reason_why_a_pool_cannot_is_told() -> None:
    for end in ENDS.values():
        for reason in end.impossible.values():
            assert reason in PAGE, end.name


def test_every_argument_and_field_is_told() -> None:
    words = set(re.findall(r"`(\w+)`", PAGE))
    arguments = set(inspect.signature(Drills.__call__).parameters) - {"self"}
    of_drills = {each.name for each in fields(Drill)} - {
        *("entries", "task", "state", "runs", "result", "exception", "lost")
    }
    of_shutdowns = {each.name for each in (*fields(Shutdown), *fields(Fates))}
    assert arguments | of_drills | of_shutdowns <= words


def test_every_end_has_signals_or_a_paragraph() -> None:
    below = PAGE.partition(table())[2]
    for end in ENDS.values():
        if sent(end, "prefork") == "see below":
            assert f"`{end.name}`" in below
