"""Faults of a real beat, seen by the kernel and by what its entries do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from conftest import IMPOSSIBLE
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import SandboxSpec
from pytest_celery_health.sandbox.brokers import UnavailableError, choose
from pytest_celery_health.sandbox.faults.base import BEAT, WORKERS
from pytest_celery_health.sandbox.world import World
from tests.faults.conftest import MakeWorld
from tests.faults.witness import ports, rabbit_clients, stopped, workers
from tests.support.timing import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def world(world_of: MakeWorld) -> World:
    """A world whose beat sends a heartbeat every 0.2 seconds."""
    world = world_of(beat=("heartbeat",))
    world.start(WORKERS, BEAT)
    return world


@pytest.fixture
def heartbeats(scratch: Path) -> Path:
    return scratch / "heartbeat"


def comes(heartbeats: Path) -> bool:
    seen = heartbeats.stat().st_size
    wait_until(lambda: heartbeats.stat().st_size > seen + 1)
    return True


def stands(heartbeats: Path) -> bool:
    """Once what was under way has come, there is no more."""
    wait_until(lambda: not _grows(heartbeats, 0.3))
    return not _grows(heartbeats, 0.7)


def _grows(file: Path, seconds: float) -> bool:
    before = file.stat().st_size
    time.sleep(seconds)
    return file.stat().st_size > before


def test_beat_stopped(world: World, heartbeats: Path) -> None:
    assert comes(heartbeats)
    (before,) = workers(world, "beat")
    with world.hold("beat_stopped"):
        assert not before.is_running()
        assert workers(world, "beat") == []
        assert stands(heartbeats)
    assert comes(heartbeats)
    assert world.notes == []


def test_beat_stalled(world: World, heartbeats: Path) -> None:
    assert comes(heartbeats)
    before = workers(world, "beat")
    with world.hold("beat_stalled"):
        assert stopped(before)
        assert stands(heartbeats)
    assert comes(heartbeats)
    assert workers(world, "beat") == before


def test_beat_twice(world: World, heartbeats: Path) -> None:
    assert comes(heartbeats)
    with world.hold("beat_twice"):
        (first,), (second,) = workers(world, "beat"), workers(world, "beat2")
        assert first.pid != second.pid
        first.suspend()
        try:
            wait_until(lambda: stopped([first]))
            assert comes(heartbeats)  # from the second
        finally:
            first.resume()
    assert not second.is_running()
    assert comes(heartbeats)


@pytest.fixture
def on_rabbitmq(spec: AppSpec, tmp_path: Path) -> Iterator[World]:
    """Another world, of which nobody else writes heartbeats into the folder."""
    try:
        choose("rabbitmq-server")
    except UnavailableError as error:
        pytest.skip(f"{IMPOSSIBLE}{error}")
    sandbox = SandboxSpec(broker="rabbitmq-server", beat=("heartbeat",), start_within=60)
    with World(sandbox, replace(spec, env={"SCRATCH": str(tmp_path)})) as world:
        world.start(WORKERS, BEAT)
        yield world


def test_rabbitmq_lists_beat_as_it_is(on_rabbitmq: World, tmp_path: Path) -> None:
    world, heartbeats = on_rabbitmq, tmp_path / "heartbeat"

    def listed(*beats: psutil.Process) -> bool:
        clients = rabbit_clients(world)
        return all(ports(beat) & clients for beat in beats)

    (beat,) = workers(world, "beat")
    assert comes(heartbeats)
    assert listed(beat)
    its = ports(beat)
    with world.hold("beat_stopped"):
        assert not beat.is_running()
        wait_until(lambda: not its & rabbit_clients(world))
        assert stands(heartbeats)
    (beat,) = workers(world, "beat")
    assert listed(beat)
    assert comes(heartbeats)
    with world.hold("beat_stalled"):
        assert stopped([beat])
        assert listed(beat)  # the broker cannot tell
        assert stands(heartbeats)
    assert not stopped([beat])
    assert comes(heartbeats)
    with world.hold("beat_twice"):
        (second,) = workers(world, "beat2")
        assert beat.is_running()
        assert listed(beat, second)
        its = ports(second)
        for one, other in ((beat, second), (second, beat)):
            one.suspend()
            try:
                wait_until(lambda one=one: stopped([one]))
                assert comes(heartbeats), f"nothing from {other.pid}"
            finally:
                one.resume()
    assert not second.is_running()
    wait_until(lambda: not its & rabbit_clients(world))
    assert listed(beat)
    assert comes(heartbeats)
    assert world.notes == []


def test_workers_and_beat_may_fail_together(world: World, heartbeats: Path) -> None:
    with world.hold("beat_stalled"), world.hold("not_consuming"), world.hold("broker_slow"):
        assert stands(heartbeats)
    assert comes(heartbeats)
    with world.hold("broker_restarts_empty"):
        pass
    assert comes(heartbeats)
    assert world.notes == []


def test_beat_fails_on_a_fake_too(spec: AppSpec, tmp_path: Path) -> None:
    heartbeats = tmp_path / "heartbeat"
    sandbox = SandboxSpec(broker="fakeredis", beat=("heartbeat",), start_within=60)
    with World(sandbox, replace(spec, env={"SCRATCH": str(tmp_path)})) as world:
        world.start(WORKERS, BEAT)
        assert comes(heartbeats)
        for fault in ("beat_stalled", "beat_stopped"):
            with world.hold(fault):
                assert stands(heartbeats)
            assert comes(heartbeats)
        with world.hold("beat_twice"):
            assert workers(world, "beat2")
        assert workers(world, "beat2") == []
        assert world.notes == []
