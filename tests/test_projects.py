"""The example and the test projects load, and say of themselves what their contracts expect."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_celery_health.project.describe import describe
from pytest_celery_health.project.info import AppInfo, AppSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow

REPO = Path(__file__).parents[1]
HERE = REPO / "tests" / "projects"
SHOP = REPO / "examples" / "shop"

SHOP_TASKS = {
    "shop.tasks.collect_queue_metrics",
    "shop.tasks.heartbeat",
    "shop.tasks.import_stock",
    "shop.tasks.nightly_report",
    "shop.tasks.process_order",
    "shop.tasks.process_payment",
    "shop.tasks.send_critical_notification",
}
#: Each project's folder, and the tasks that it defines.
PROJECTS = {
    SHOP: SHOP_TASKS,
    HERE / "guide": SHOP_TASKS,
    HERE / "autodiscover": {"billing.tasks.invoice", "mail.tasks.send"},
    HERE / "django": {"orders.tasks.heartbeat", "orders.tasks.pack"},
    HERE / "django_guide": {"orders.tasks.beat_heartbeat", "orders.tasks.pack"},
    HERE / "django_shop": {"orders.tasks.beat_heartbeat", "orders.tasks.pack"},
    HERE / "django_celery_beat": {"mysite.heartbeat"},
    HERE / "factory": {"shop.pack"},
    HERE / "handlers_httphandler": {"shop.charge", "shop.pack"},
    HERE / "handlers_httpx": {"shop.charge", "shop.pack"},
    HERE / "handlers_sdk": {"shop.charge", "shop.pack"},
    HERE / "health_styles": {"styles.app.work"},
    HERE / "logs_default": {"shop.pack"},
    HERE / "logs_django": {"orders.tasks.pack"},
    HERE / "logs_json": {"shop.pack"},
    HERE / "logs_own_root": {"shop.pack"},
    HERE / "logs_queue": {"shop.pack"},
    HERE / "logs_structlog": {"shop.pack"},
    HERE / "leaky": {"leaky.leak", "leaky.unnamed"},
    HERE / "metrics_http": {"shop.measure", "shop.pack"},
    HERE / "metrics_live": {"shop.pack"},
    HERE / "metrics_push": {"shop.measure"},
    HERE / "metrics_wsgi": {"shop.measure"},
    HERE / "monorepo" / "services" / "billing": {"billing.invoice"},
    HERE / "redbeat": {"shop.heartbeat"},
    HERE / "thirdparty": {"acme.work"},
}


def load(root: Path, env: Mapping[str, str] = {}) -> AppInfo:
    contract = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["celery-health"]
    spec = AppSpec(contract["app"], root, env={**contract.get("env", {}), **env})
    return describe(spec, timeout=30)


@pytest.mark.parametrize("root", PROJECTS, ids=lambda root: root.name)
def test_every_project_loads_with_all_of_its_tasks(root: Path, tmp_path: Path) -> None:
    decoys = ("DECOY_REDIS", "DECOY_POSTGRES", "DECOY_HTTP", "DECOY_UDP")
    closed = dict.fromkeys(decoys, "127.0.0.1:1") | {"DECOY_SQLITE": str(tmp_path / "decoy.sqlite3")}
    closed["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path)
    info = load(root, closed if root.name in ("leaky", "django_celery_beat", "metrics_wsgi") else {})
    assert info.tasks == PROJECTS[root]
    assert not info.schedule_unseen
    assert [entry.name for entry in info.schedule if entry.problem or not entry.registered] == []


def test_the_shop_and_its_twin_have_one_contract() -> None:
    contracts = [
        tomllib.loads((root / "pyproject.toml").read_text())["tool"]["celery-health"]
        for root in (SHOP, HERE / "guide")
    ]
    assert contracts[0] == contracts[1]


def test_the_twin_keeps_the_guides_mistakes() -> None:
    """As they stand in the text: issues to come catch what they do."""
    signals = (HERE / "guide" / "shop" / "signals.py").read_text()
    assert 'extra={"args": args' in signals
    assert "request.retries >= 3" in signals
    assert '"process_payment"' in signals
    assert "timeout" not in signals.replace("no timeout", "")
    health = (HERE / "guide" / "shop" / "health.py").read_text()
    assert ".seconds" in health
    assert "total_seconds" not in health
    assert "SimpleQueue" in health


@pytest.mark.parametrize("root", [SHOP, HERE / "guide", HERE / "thirdparty"], ids=lambda root: root.name)
def test_a_projects_ordinary_tests_are_green(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_installed_third_partys_check_is_used_by_a_contract(tmp_path: Path) -> None:
    source, site, project = (tmp_path / name for name in ("source", "site", "project"))
    shutil.copytree(
        HERE / "thirdparty", source, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache")
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(source)],
        check=True,
        timeout=100,
    )
    project.mkdir()
    shutil.copy(HERE / "thirdparty" / "app.py", project)
    contract = (HERE / "thirdparty" / "pyproject.toml").read_text()
    misspelt = '\n[tool.celery-health.check.dql]\nuse = "acme_checks:NoPoison"\n'
    (project / "pyproject.toml").write_text(contract[contract.index("[tool.pytest") :] + misspelt)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--celery-health", "-p", "no:cacheprovider"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED pyproject.toml::dql[sandbox] - dql does not exist; wanted a queue" in done.stdout
    assert "3 checks: 2 healthy, 1 unhealthy" in done.stdout
