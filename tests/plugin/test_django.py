"""Django projects by contract alone: as the guides have it, and as it should be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.plugin.conftest import run

pytestmark = pytest.mark.slow
PROJECTS = Path(__file__).parents[1] / "projects"
SHOP, GUIDE = PROJECTS / "django_shop", PROJECTS / "django_guide"
SOUND = ("workers", "orders", "beat", "schedule")
#: What the guides have wrong.
ROWS = (*SOUND, "health", "health-async", "beat-health", "checkout", "logs", "stuck")


def row(name: str) -> str:
    return f"pyproject.toml::{name}[sandbox]"


def test_the_twin_is_green() -> None:
    done = run(SHOP, *map(row, (*ROWS, "backend")), within=100)
    assert done.returncode == 0, done.stdout
    assert "11 checks: 11 healthy" in done.stdout


def test_the_guide_is_red() -> None:
    done = run(GUIDE, *map(row, (*ROWS, "peace", "backend")), within=110)
    assert done.returncode == 1, done.stdout
    for line in (
        "/health/?format=json hung in broker_hangs",
        "check_beat_health says healthy while the heartbeat is exactly a day old (heartbeat_day_old); wanted",
        "check_beat_health says unhealthy while the heartbeat is a second in the future",
        "check_beat_health raised ConnectionError",
        "checkout hung for 3 s while the broker hangs, at orders/views.py:9; wanted an end within 3 s",
        "place_order_in_peace loses orders.tasks.pack: it returned while the broker refuses, and no"
        " message arrives",
        "orders.healthchecks:CeleryHealthCheck failed to load: ModuleNotFoundError: No module named"
        " 'health_check.backends'",
        "handler celery is taken away when a worker sets up logging, from celery and celery.task, and gets no"
        " record (RotatingFileHandler, /dev/null); wanted its records",
        "handler celery fails with ValueError: Formatting field not found in record: 'task_name' for a record"
        " from outside of tasks, too (RotatingFileHandler, /dev/null); wanted a line for every record",
        "celery.app.trace reaches no handler: celery does not propagate, and no handler is there; wanted",
        "find_long_running_tasks found nothing while there is no worker (no_workers); wanted an error",
        "find_long_running_tasks hung in broker_hangs, at orders/health.py:",
    ):
        assert line in done.stdout, done.stdout
    # An ASGI server answers, but each time it does a thread hangs for good.
    assert "health-async[sandbox] - /health/?format=json leaves a thread with each call in broker_hangs" in (
        done.stdout
    )
    for healthy in SOUND:
        assert f"FAILED pyproject.toml::{healthy}[" not in done.stdout


def test_a_cache_that_processes_do_not_share_is_named(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    shutil.copytree(SHOP, root, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    settings = root / "mysite" / "settings.py"
    kind = 'CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}'
    settings.write_text(f"{settings.read_text()}\n{kind}\n")
    done = run(root, row("beat"), row("beat-health"), within=100)
    assert done.returncode == 1, done.stdout
    alone = (
        "Django's default cache is a LocMemCache, in which each process sees only what it wrote itself;"
        " set CACHES to one that processes share, such as Redis"
    )
    for line in (
        f"cannot tell: orders.health:last_heartbeat() returned None: {alone}",
        "check_beat_health says unhealthy in a healthy world; wanted healthy (no heartbeat)",
        f" beat and a worker wrote no call:orders.health:last_heartbeat within 15 s: {alone}",
    ):
        assert line in done.stdout, done.stdout


@pytest.mark.parametrize(
    "plugins",
    [
        ("-p", "no:django"),
        pytest.param(("-p", "django", "--ds=mysite.settings"), marks=pytest.mark.neighbours),
    ],
    ids=["without pytest-django", "with pytest-django"],
)
def test_ordinary_tests_have_signals_drills_fleets_and_faults(plugins: tuple[str, ...]) -> None:
    if "django" in plugins and find_spec("pytest_django") is None:
        pytest.skip("no pytest-django: pip install -e '.[neighbours]'")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    own = ("-p", "no:cacheprovider", "-p", "pytest_celery_health.plugin", *plugins)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *own],
        cwd=SHOP,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
