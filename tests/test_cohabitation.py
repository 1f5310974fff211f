"""The plugin beside others in one environment: health runs and ordinary runs, with and without each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import IMPOSSIBLE

pytestmark = pytest.mark.slow

PYTEST = tuple(int(part) for part in pytest.__version__.split(".")[:2])

CONTRACT = """
[tool.celery-health]
app = "small:app"

[tool.celery-health.check.workers]
use = "workers"
tasks = "all"

[tool.celery-health.check.celery]
use = "queue"
ready_below = 10
consumers_at_least = 1
"""

APP = """
from celery import Celery

app = Celery("small", broker="redis://127.0.0.1:1/0")

@app.task
def add(a, b):
    return a + b
"""

TESTS = """
import pytest
from pytest_celery_health import WorkersAnswer

def test_plain():
    pass

@pytest.mark.celery_health(WorkersAnswer(at_least=1))
def test_marked(celery_health):
    celery_health.expect(WorkersAnswer(tasks=("small.add",)))
"""

DJANGO = """
SECRET_KEY = "of a test"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
"""

#: Each neighbour's own features, used beside ours.
BESIDE_ASYNCIO = """
import pytest
from pytest_celery_health import WorkersAnswer

@pytest.mark.asyncio
async def test_async():
    pass

@pytest.mark.asyncio
@pytest.mark.celery_health(WorkersAnswer())
async def test_async_marked(celery_health):
    celery_health.expect(WorkersAnswer())
"""

BESIDE_DJANGO = """
import pytest
from pytest_celery_health import WorkersAnswer

@pytest.mark.django_db
def test_database(django_assert_num_queries):
    from django.contrib.sites import apps  # settings are there

@pytest.mark.celery_health(WorkersAnswer())
def test_database_marked(db, settings, celery_health):
    assert settings.SECRET_KEY == "of a test"
"""

BESIDE_CELERY = """
import pytest

@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": "memory://", "result_backend": "cache+memory://"}

@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"perform_ping_check": False}

def test_embedded_worker(celery_app, celery_worker):
    @celery_app.task
    def double(x):
        return 2 * x

    celery_worker.reload()
    assert double.delay(21).get(timeout=10) == 42
"""


#: Unset, pytest-asyncio warns at its start.
LOOP = ("-o", "asyncio_default_fixture_loop_scope=function") if find_spec("pytest_asyncio") else ()


class Project:
    """A small project with a contract of two rows, a plain test and a marked one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("pyproject.toml", "[tool.pytest.ini_options]\n" + CONTRACT)
        self.write("small.py", APP)
        self.write("test_small.py", TESTS)

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def pytest(self, *args: str, plugins: Sequence[str] = (), alone: bool = True) -> tuple[int, str]:
        """Exit code and output of a run with these plugins; not `alone`: with all that are installed."""
        env = {
            name: value
            for name, value in os.environ.items()
            if name not in ("CI", "PYTEST_ADDOPTS") and not name.startswith("PYTEST_XDIST")
        }
        if alone:
            env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            plugins = ("celery_health", *plugins)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
            + [word for plugin in plugins for word in ("-p", plugin)]
            + [*args],
            cwd=self.root,
            env=env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def check(self, *args: str, plugins: Sequence[str] = (), alone: bool = True, ours: int = 1) -> None:
        """A health run of two rows and `ours` marked tests is green; an ordinary run skips these tests."""
        code, output = self.pytest("--celery-health", *args, plugins=plugins, alone=alone)
        assert code == 0, output
        assert f"{2 + ours} passed" in output
        code, output = self.pytest(*args, plugins=plugins, alone=alone)
        assert code == 0, output
        assert f"{ours} skipped" in output


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("plugins", "args"),
    [
        (["xdist"], ["-n", "2"]),
        (["randomly"], ["-p", "no:xdist"]),
        (["timeout"], ["--timeout=60"]),
        (["timeout"], ["--timeout=60", "--timeout-method=thread"]),
        (["celery.contrib.pytest"], []),
        (["requests_mock"], []),
        (
            ["xdist", "randomly", "timeout", "requests_mock", "celery.contrib.pytest"],
            ["-n", "2", "--timeout=60"],
        ),
        ([], ["-W", "error"]),
        ([], ["--strict-markers", "--strict-config", "-W", "error"]),
        ([], ["--import-mode=importlib"]),
    ],
    ids=lambda words: " ".join(words).replace("celery.contrib.pytest", "contrib") or "alone",
)
def test_beside(project: Project, plugins: list[str], args: list[str]) -> None:
    project.check(*args, plugins=plugins)


def test_celerys_own_fixtures_work_beside_ours(project: Project) -> None:
    project.write("test_embedded.py", BESIDE_CELERY)
    project.check(plugins=["celery.contrib.pytest"])


def test_strict_mode_of_native_toml(project: Project) -> None:
    if PYTEST < (9, 0):
        pytest.skip(f"{IMPOSSIBLE}pytest {pytest.__version__} knows no [tool.pytest] of its own")
    native = '[tool.pytest]\nstrict = true\nfilterwarnings = ["error"]\naddopts = ["-ra"]\n'
    project.write("pyproject.toml", native + CONTRACT)
    project.check()


def test_switched_off(project: Project) -> None:
    """`-p no:celery_health` leaves nothing behind; the contract is a table that pytest does not read."""
    project.write("test_small.py", "def test_plain(): pass\n")
    code, output = project.pytest("-p", "no:celery_health", "-W", "error", *LOOP, alone=False)
    assert code == 0, output
    assert "1 passed" in output
    code, output = project.pytest("-p", "no:celery_health", "--celery-health", alone=False)
    assert code == 4
    assert "unrecognized arguments: --celery-health" in output


def test_switched_off_with_strict_markers(project: Project) -> None:
    """As for any plugin's marker: the project declares it, too, and leaves out what is marked."""
    off = ("-p", "no:celery_health", "--strict-markers", *LOOP)
    code, output = project.pytest(*off, alone=False)
    assert code == 2, output
    assert "'celery_health' not found in `markers` configuration option" in output
    declared = '[tool.pytest.ini_options]\nmarkers = ["celery_health: judged by pytest --celery-health"]\n'
    project.write("pyproject.toml", declared + CONTRACT)
    code, output = project.pytest(*off, "-m", "not celery_health", "-W", "error", alone=False)
    assert code == 0, output
    assert "1 passed, 1 deselected" in output
    project.check()


@pytest.mark.neighbours
class TestNeighbours:
    """With the extra `neighbours` installed."""

    @pytest.fixture(autouse=True)
    def _settings(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        project.write("small_settings.py", DJANGO)
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "small_settings")

    @pytest.mark.parametrize("args", [[], ["-n", "2"], ["-W", "error"]], ids=" ".join)
    def test_everything_installed(self, project: Project, args: list[str]) -> None:
        project.check("-p", "celery.contrib.pytest", "--timeout=60", *LOOP, *args, alone=False)

    def test_pytest_celery(self, project: Project) -> None:
        project.check(plugins=["celery"])

    def test_a_red_row_beside_pytest_celery(self, project: Project) -> None:
        """Its pytest-docker-tools asks every failed item for its fixtures."""
        row = "[tool.celery-health.check.more]\nuse = 'workers'\nat_least = 2\n"
        project.write("pyproject.toml", CONTRACT + row)
        code, output = project.pytest("--celery-health", *LOOP, alone=False)
        assert code == 1, output
        assert "INTERNALERROR" not in output
        assert "::more[sandbox] - " in output

    @pytest.mark.parametrize("args", [[], ["-n", "2"]], ids=" ".join)
    def test_a_row_that_pytest_rerunfailures_runs_again_is_counted_once(
        self, project: Project, args: list[str]
    ) -> None:
        row = "[tool.celery-health.check.more]\nuse = 'workers'\nat_least = 2\n"
        project.write("pyproject.toml", CONTRACT + row)
        run = ("--celery-health", "--reruns", "2", *args)
        code, output = project.pytest(*run, plugins=["rerunfailures", "xdist"])
        assert code == 1, output
        assert "2 rerun" in output
        assert "5 checks: 4 healthy, 1 unhealthy" in output

    def test_pytest_asyncio(self, project: Project) -> None:
        project.write("test_async.py", BESIDE_ASYNCIO)
        project.check("-W", "error", *LOOP, plugins=["asyncio"], ours=2)

    def test_pytest_django(self, project: Project) -> None:
        project.write("test_django.py", BESIDE_DJANGO)
        project.check("-W", "error", plugins=["django"], ours=2)
