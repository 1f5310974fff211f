"""The nearest contract above what pytest was asked to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_celery_health.contract.find import find
from pytest_celery_health.contract.model import ContractError

CONTRACT = "[tool.celery-health]\n"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A monorepo: a contract at its root, one in services/billing, none in services/mail."""
    for folder in ("services/billing/tests", "services/mail/tests"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(CONTRACT)
    (tmp_path / "services/billing/pyproject.toml").write_text(CONTRACT)
    (tmp_path / "services/mail/pyproject.toml").write_text("[tool.black]\n# celery-health\n")
    return tmp_path


@pytest.mark.parametrize(
    ("named", "cwd", "found"),
    [
        ([], ".", "pyproject.toml"),
        ([], "services/billing/tests", "services/billing/pyproject.toml"),
        ([], "services/mail", "pyproject.toml"),
        (["services/billing"], ".", "services/billing/pyproject.toml"),
        (["services/billing/tests/test_a.py"], ".", "services/billing/pyproject.toml"),
        (["services/billing/pyproject.toml"], ".", "services/billing/pyproject.toml"),
        (["../billing/tests", "../billing"], "services/mail", "services/billing/pyproject.toml"),
        (["services/mail/tests", "services"], ".", "pyproject.toml"),
    ],
)
def test_the_nearest_counts(repo: Path, named: list[str], cwd: str, found: str) -> None:
    assert find([Path(path) for path in named], repo / cwd) == repo / found


def test_named_paths_must_agree(repo: Path) -> None:
    with pytest.raises(ContractError) as caught:
        find([Path("services/billing"), Path("services/mail")], repo)

    assert str(caught.value) == (
        f"services/billing leads to {repo}/services/billing/pyproject.toml,"
        f" services/mail leads to {repo}/pyproject.toml: one run has one contract;"
        " name it with --celery-health-contract, or run each by itself"
    )


def test_none(tmp_path: Path) -> None:
    assert find([], tmp_path) is None


def test_a_path_without_a_contract_does_not_matter(
    repo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert find([repo, tmp_path_factory.mktemp("elsewhere")], repo) == repo / "pyproject.toml"


@pytest.mark.parametrize("broken", [CONTRACT + "app = shop", CONTRACT + "# \udcff"])
def test_one_that_cannot_be_read_is_found_so_that_reading_it_says_why(tmp_path: Path, broken: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes(broken.encode(errors="surrogateescape"))

    assert find([], tmp_path) == tmp_path / "pyproject.toml"


@pytest.mark.parametrize("table", ["tool.celery_health", "tool.celeryhealth", "celery-health"])
def test_one_whose_table_is_misspelt_is_found_so_that_reading_it_says_so(repo: Path, table: str) -> None:
    (repo / "services/mail/pyproject.toml").write_text(f"[{table}]\napp = 'mail'\n")

    assert find([], repo / "services/mail") == repo / "services/mail/pyproject.toml"


@pytest.mark.parametrize("table", ["tool.celery", "tool.celery-helper", "tool.health"])
def test_a_table_of_another_tool_is_none(repo: Path, table: str) -> None:
    (repo / "services/mail/pyproject.toml").write_text(f"[{table}]\napp = 'mail'\n")

    assert find([], repo / "services/mail") == repo / "pyproject.toml"


def test_a_broken_file_of_somebody_else_is_passed_by(repo: Path) -> None:
    (repo / "services/mail/pyproject.toml").write_text("[tool.black")

    assert find([], repo / "services/mail") == repo / "pyproject.toml"
