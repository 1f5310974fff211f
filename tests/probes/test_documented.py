"""docs/probes.md has the sets and the worlds as they are."""

from __future__ import annotations

from pytest_celery_health.checks.probe import SETS, WORLDS
from tests.probes.conftest import REPO

PAGE = (REPO / "docs" / "probes.md").read_text()


def sets() -> str:
    """The table of sets; this text is what to paste."""
    lines = ["| `worlds` | must be red | must be green |", "|---|---|---|"]
    for name, ready in SETS.items():
        tried = [f"`{world}` (either, nothing left behind)" for world in ready.tried]
        green = [*(f"`{world}`" for world in ready.healthy), *tried]
        red = ", ".join(f"`{world}`" for world in ready.unhealthy)
        lines.append(f"| `{name}` | {red or '-'} | {', '.join(green) or '-'} |")
    return "\n".join(lines)


def worlds() -> str:
    """The table of worlds; this text is what to paste."""
    lines = ["| world | what is so |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, what in WORLDS.items()]
    return "\n".join(lines)


def test_the_sets() -> None:
    assert sets() in PAGE


def test_the_worlds() -> None:
    assert worlds() in PAGE
