"""Worlds of a small project. They last as long as pytest does, as a user's do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from conftest import IMPOSSIBLE
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import SandboxSpec, brokers
from pytest_celery_health.sandbox.faults.here import CeleryFaults
from pytest_celery_health.sandbox.world import World

NOWHERE = "redis://production.example:6379"

APP = f"""
import os
from pathlib import Path
from celery import Celery

app = Celery("tiny", broker="{NOWHERE}/0", backend="{NOWHERE}/1")
app.conf.task_routes = {{"tiny.pay": {{"queue": "payments"}}}}
app.conf.beat_schedule = {{"heartbeat": {{"task": "tiny.touch", "schedule": 0.2, "args": ["heartbeat"]}}}}

@app.task(name="tiny.touch", ignore_result=True)
def touch(name):
    with Path(os.environ["SCRATCH"], name).open("a") as file:
        file.write(".")
"""

MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the project's tasks write."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory, scratch: Path) -> AppSpec:
    """The project."""
    root = tmp_path_factory.mktemp("project")
    (root / "tiny.py").write_text(APP)
    return AppSpec("tiny:app", root, env={"SCRATCH": str(scratch)})


@pytest.fixture(scope="session")
def world_of(spec: AppSpec) -> Iterator[MakeWorld]:
    """A world with these settings of a sandbox. The same asks share one."""
    made: dict[object, World] = {}

    def of(broker: str = "", **more: Any) -> World:
        try:
            brokers.choose(broker)
        except brokers.UnavailableError as error:
            pytest.skip(f"{IMPOSSIBLE}{error}")
        key = (broker, *sorted(more.items()))
        if key not in made:
            made[key] = World(SandboxSpec(broker=broker, start_within=60, **more), spec)
        return made[key]

    yield of
    for world in made.values():
        world.close()


@pytest.fixture
def world(world_of: MakeWorld) -> World:
    """A world whose workers are not needed."""
    return world_of()


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app of this process, that waits for its broker half a second at most."""
    with Celery("tiny", broker=f"{NOWHERE}/0", backend=f"{NOWHERE}/1", set_as_current=False) as app:
        app.conf.broker_transport_options = {
            **dict.fromkeys(("socket_timeout", "socket_connect_timeout"), 0.3),
            **dict.fromkeys(("read_timeout", "write_timeout"), 0.3),
            "max_retries": 0,
        }
        app.conf.broker_connection_timeout = 0.3
        yield app


@pytest.fixture
def faults(world: World, app: Celery) -> Iterator[CeleryFaults]:
    """What a user's test is given."""
    with CeleryFaults(world, app, ["CACHE_URL"]) as faults:
        yield faults
