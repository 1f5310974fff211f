"""docs/probes.md has the sets and the worlds as they are, and what a run says of an example."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_celery_health.checks.probe import SETS, WORLDS
from tests.plugin.conftest import run
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


@pytest.mark.slow
def test_the_messages_of_a_host(tmp_path: Path) -> None:
    section = PAGE.partition("## A host that")[2].partition("\n## ")[0]
    contract, code, said = re.findall(r"^```\w*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    app = 'from celery import Celery\n\napp = Celery("shop", broker="redis://production.example:6379/0")\n'
    contract = f'[tool.celery-health]\napp = "shop.celery:app"\n\n{contract}'
    files = {"pyproject.toml": contract, "shop/celery.py": app, "shop/health.py": code}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    done = run(tmp_path)
    assert [line for line in done.stdout.splitlines() if line.startswith("FAILED")] == said.splitlines()
