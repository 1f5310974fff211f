"""What the documents say is what the code does."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from pytest_celery_health.checks import CHECKS
from pytest_celery_health.contract.model import Row, TargetSpec
from pytest_celery_health.contract.read import read
from pytest_celery_health.sandbox.spec import SandboxSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).parents[1]
PAGES = sorted([REPO / "README.md", *(REPO / "docs").glob("*.md")])
REFERENCE = (REPO / "docs" / "checks.md").read_text()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=lambda page: page.name)
def test_every_contract_in_the_documents_is_valid(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(REPO / "tests" / "projects" / "thirdparty")
    for number, text in enumerate(blocks(page, "toml")):
        if "app" not in tomllib.loads(text)["tool"]["celery-health"]:
            text = f'[tool.celery-health]\napp = "shop.celery:app"\n\n{text}'
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        read(path)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_every_python_in_the_documents_compiles(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, page.name, "exec")


def documented(heading: str) -> set[str]:
    """First column of the tables below the heading that holds `heading`."""
    section = re.split(r"^##+ ", REFERENCE.partition(heading)[2], maxsplit=1, flags=re.MULTILINE)[0]
    names = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return {name for cell in names for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("use", CHECKS)
def test_every_field_of_a_check_is_in_the_reference(use: str) -> None:
    names = {field.name for field in fields(CHECKS[use])}
    assert names == documented(f"### `{use}`") & names
    assert documented(f"### `{use}`") - names <= {"ping", "redbeat"}


def test_every_key_of_a_contract_is_in_the_reference() -> None:
    assert documented("[tool.celery-health.sandbox]`") == {field.name for field in fields(SandboxSpec)}
    assert documented("[tool.celery-health.target.NAME]`") == {
        field.name for field in fields(TargetSpec) if field.name != "name"
    }
    own = {field.name for field in fields(Row)} - {"name", "check", "line"}
    assert documented("[tool.celery-health.check.ROW]`") == own | {"use"}


def test_every_link_between_documents_leads_somewhere() -> None:
    for page in [*PAGES, REPO / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}, link
