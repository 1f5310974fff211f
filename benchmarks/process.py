"""A health run as a whole process, against `celery inspect ping`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from celery import Celery

from benchmarks import scene
from benchmarks.measure import Row, Side, compare

CONTRACT = """
[tool.pytest.ini_options]
addopts = "-p no:cacheprovider"

[tool.celery-health]
app = "benchmarks.app:app"

[tool.celery-health.target.live]
broker = "app"
expect_host = "127.0.0.1"

[tool.celery-health.check.workers]
use = "workers"
names = ["{worker}"]
tasks = "all"
pool_size = 2

[tool.celery-health.check.queue]
use = "queue"
queues = ["{queue}"]
ready_below = 1000
consumers_at_least = 1

[tool.celery-health.check.schedule]
use = "schedule"
"""


def rows(kind: str, broker: str, rounds: int) -> Iterator[Row]:
    """The plugin judges workers, a queue and the schedule; Celery's command says that somebody is there."""
    with (
        scene.app(broker) as app,
        scene.worker(app) as name,
        tempfile.TemporaryDirectory() as folder,
    ):
        queue = app.conf.task_default_queue
        Path(folder, "pyproject.toml").write_text(CONTRACT.format(worker=name, queue=queue))
        argv = [sys.executable, "-m", "pytest", "--celery-health", "--celery-health-target=live", "-q"]
        ping = [sys.executable, "-m", "celery", "-A", "benchmarks.app", "inspect", "ping"]
        sides = [
            Side("ours", command(app, argv, folder, "healthy")),
            Side("celery inspect ping", command(app, ping, folder, "1 node online")),
        ]
        yield compare(f"whole process, {kind}", sides, rounds, 1.0)


def command(app: Celery, argv: list[str], folder: str, said: str) -> Callable[[], object]:
    """Run a command that must succeed and say so."""
    environment = {
        **scene.environment(app),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "pytest_celery_health.plugin",
    }

    def run() -> None:
        done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode or said not in done.stdout:
            raise AssertionError(f"{' '.join(argv[1:])} failed:\n{done.stdout}\n{done.stderr}")

    return run
