"""What an ordinary pytest run pays for having plugins installed: an empty collection.

In processor time: what else the machine does would hide a difference of milliseconds.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.measure import Row, Side, compare

PLUGINS = {
    "pytest with pytest-celery-health": "pytest_celery_health.plugin",
    "pytest alone": "",
    "pytest with pytest-celery": "pytest_celery.plugin",
}


def row(rounds: int) -> Row:
    """Only the plugin in question is loaded, whatever else is installed."""
    with tempfile.TemporaryDirectory() as folder:
        sides = [
            Side(name, empty_run(plugin, folder))
            for name, plugin in PLUGINS.items()
            if not plugin or importlib.util.find_spec(plugin.partition(".")[0])
        ]
        return compare("an empty collection, processor time", sides, rounds, clock=spent)


def spent() -> float:
    """Processor time of the processes that ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def empty_run(plugin: str, folder: str) -> Callable[[], object]:
    """pytest on a folder without tests."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # Not by -p, which searches the metadata of every installed package for the name.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": plugin}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # pytest would compile the plugin in every run

    def run() -> None:
        done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode != 5:
            raise AssertionError(f"{done.stdout}\n{done.stderr}")

    return run


def summary(row: Row) -> Sequence[str]:
    """What each plugin adds: the median of the differences within a round, and their middle half."""
    alone = row.taken["pytest alone"]
    lines = []
    for name, times in row.taken.items():
        if name != "pytest alone":
            added = sorted(1000 * (with_it - without) for with_it, without in zip(times, alone, strict=True))
            quarter = len(added) // 4
            lines.append(
                f"{name.removeprefix('pytest with ')} adds {median(added):+.1f} ms to an empty collection"
                f" ({added[quarter]:+.1f} to {added[-1 - quarter]:+.1f})"
            )
    return lines
