"""What is shipped: public names that tell what they do, modules of one style, complete metadata."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest

import pytest_celery_health

PACKAGE = Path(pytest_celery_health.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = sorted(pytest_celery_health.__all__)


def test_the_public_names_are_told_in_order() -> None:
    assert list(pytest_celery_health.__all__) == NAMES
    assert dir(pytest_celery_health) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_says_what_it_is(name: str) -> None:
    thing = getattr(pytest_celery_health, name)
    told = inspect.getdoc(thing) or ""
    assert told, f"{name} has no docstring"
    assert not told.startswith(f"{name}("), f"{name} has only the signature that dataclass wrote"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'QueueDpeth'"):
        pytest_celery_health.QueueDpeth  # noqa: B018


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_is_of_one_style(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "no docstring"
    futures = [
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for alias in node.names
    ]
    annotated = any(
        getattr(node, name, None) for node in ast.walk(tree) for name in ("annotation", "returns")
    )
    assert futures == ["annotations"] or not annotated
    banners = re.findall(r"^\s*#\s*[-=#*~]{3,}.*$", source, re.MULTILINE)
    assert banners == []


def test_the_distribution_is_typed_and_is_a_pytest_plugin() -> None:
    installed = distribution("pytest-celery-health")
    points = [point for point in entry_points(group="pytest11") if point.name == "celery_health"]
    assert [point.value for point in points] == ["pytest_celery_health.plugin"]
    assert "Framework :: Pytest" in installed.metadata.get_all("Classifier", [])
    assert "Typing :: Typed" in installed.metadata.get_all("Classifier", [])
    assert (PACKAGE / "py.typed").is_file()


def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    """In CI's wheel step; an editable install lists no module of ours."""
    files = [file for file in distribution("pytest-celery-health").files or [] if file.suffix == ".py"]
    if files:
        assert "pytest_celery_health/py.typed" in map(str, distribution("pytest-celery-health").files or [])
        assert {file.parts[0] for file in files} == {"pytest_celery_health"}
        assert {str(file.relative_to("pytest_celery_health")) for file in files} == {
            str(path.relative_to(PACKAGE)) for path in MODULES
        }
