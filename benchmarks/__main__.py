"""Measure everything and print one table. See README.md beside this file."""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version

from kombu import Connection

from benchmarks import depths, process, recording, scene, simulated, startup, verdict
from benchmarks.measure import Row, table
from pytest_celery_health.sandbox.brokers import UnavailableError

SECTIONS = ("verdict", "depths", "process", "simulated", "startup", "recording")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny rounds: shows that it works, measures nothing"
    )
    parser.add_argument("--no-rabbitmq", action="store_true", help="leave RabbitMQ out")
    told = parser.parse_args(arguments)
    chosen = told.sections or SECTIONS
    if not set(chosen) <= set(SECTIONS):
        parser.error(f"sections are {', '.join(SECTIONS)}")
    # As pip does: in a new checkout each process would compile what is measured.
    compileall.compile_dir(scene.ROOT / "pytest_celery_health", quiet=1)
    rows: list[Row] = []
    notes: list[str] = []
    with ExitStack() as stack:
        brokers = {}
        try:
            brokers["Redis"] = stack.enter_context(scene.redis())
        except UnavailableError as reason:
            notes.append(f"Redis left out: {reason}")
        if not told.no_rabbitmq:
            brokers["RabbitMQ"] = scene.rabbitmq()
        if not brokers.get("RabbitMQ", "there"):
            notes.append("RabbitMQ left out: not reachable (RABBITMQ_URL names another)")
        for kind, url in brokers.items():
            if not url:
                continue
            notes.append(f"{kind}: {served_by(url)}")
            for name, measured in on_broker(kind, url, quick=told.quick).items():
                if name in chosen:
                    for row in measured():
                        rows.append(row)
                        print(f"{row.title} measured", file=sys.stderr)
            if "simulated" in chosen:
                notes.extend(simulated.summary(kind, url, 1 if told.quick else 9))
    if "simulated" in chosen:
        notes.extend(simulated.summary("memory", "memory://", 1 if told.quick else 9))
        try:
            with scene.server("fakeredis") as url:
                notes.extend(simulated.summary("fakeredis", url, 1 if told.quick else 9))
        except UnavailableError as reason:
            notes.append(f"fakeredis left out: {reason}")
    if "startup" in chosen:
        empty = startup.row(1 if told.quick else 40)
        notes.extend(startup.summary(empty))
        rows.append(empty)
    if "recording" in chosen:
        recorded = recording.row(1 if told.quick else 20)
        notes.extend(recording.summary(recorded))
        rows.append(recorded)
    print(setting())
    print(table(rows, goals=not told.quick), "", *notes, sep="\n")
    return 0


def on_broker(kind: str, url: str, *, quick: bool) -> dict[str, Callable[[], Iterator[Row]]]:
    """The sections that need a broker."""
    return {
        "verdict": lambda: verdict.rows(kind, url, *((1, 3, 1) if quick else (3, 100))),
        "depths": lambda: depths.rows(kind, url, *((1, 10) if quick else (5, 1000))),
        "process": lambda: process.rows(kind, url, 1 if quick else 7),
        "simulated": lambda: simulated.rows(kind, url, *((1, 3) if quick else (7, 1000))),
    }


def setting() -> str:
    """Where and with what the figures were measured."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis", "pytest"))
    return f"{date.today()}: Python {platform.python_version()}, {versions}; {os.cpu_count()} cores\n"


def served_by(url: str) -> str:
    """Name and version of a broker."""
    with Connection(url) as connection:
        if url.startswith("redis"):
            told = connection.default_channel.client.info("server")
            return f"{told.get('server_name', 'redis')} {told.get('valkey_version') or told['redis_version']}"
        properties = connection.connection.server_properties
        return f"{properties.get('product')} {properties.get('version')}"


if __name__ == "__main__":
    sys.exit(main())
