"""The world that faults are held in: what it is for children, what it refuses, and that it comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest
import redis
from celery import Celery
from kombu import Connection

from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import SandboxSpec
from pytest_celery_health.sandbox.faults import FAULTS, Fault
from pytest_celery_health.sandbox.faults.base import BEAT, HOST, WORKERS
from pytest_celery_health.sandbox.faults.here import CeleryFaults
from pytest_celery_health.sandbox.world import World
from tests.faults.conftest import MakeWorld
from tests.faults.witness import direct, greeting, keys, redis_cli, refused
from tests.sandbox.remains import Remains
from tests.support.timing import wait_until

PROBE = """
import json, os, redis
try:
    redis.Redis.from_url(os.environ["CELERY_BROKER_URL"], socket_timeout=0.3, retry=None).ping()
    found = "healthy"
except Exception as error:
    found = f"{type(error).__name__}: {error}"
try:
    redis.Redis(port=6379, retry=None).ping()
    elsewhere = "reached"
except Exception as error:
    elsewhere = str(error)
print(json.dumps([found, elsewhere, os.environ["CACHE_URL"] == os.environ["CELERY_BROKER_URL"]]))
"""


def probe(world: World) -> list[object]:
    """What a child process under test finds."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=dict(world.environ),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    found: list[object] = json.loads(done.stdout)
    return found


def test_a_child_process_is_sealed_and_sees_the_fault(world_of: MakeWorld) -> None:
    world = world_of(redirect_env=("CACHE_URL",))
    found, elsewhere, redirected = probe(world)
    assert (found, redirected) == ("healthy", True)
    assert "the sandbox refused a connection to" in str(elsewhere)
    with world.hold("broker_refuses"):
        assert "Connection refused" in str(probe(world)[0])
    with world.hold("broker_hangs"):
        assert str(probe(world)[0]).startswith("TimeoutError")
    assert probe(world)[0] == "healthy"


def test_the_broker_restarts_empty(faults: CeleryFaults) -> None:
    world = faults.world
    assert redis_cli(direct(world), "SET", "kept", "1") == "OK"
    run = redis_cli(direct(world), "INFO", "server").partition("run_id:")[2][:40]
    with faults.broker_restarts_empty():
        assert redis_cli(direct(world), "GET", "kept") == ""
        assert redis_cli(direct(world), "INFO", "server").partition("run_id:")[2][:40] != run
        assert greeting(world.url, b"PING\r\n") == "answers"
        with refused("backend_slow cannot be held beside broker_restarts_empty"):
            world.enter("backend_slow")


def test_the_broker_fails_over_to_another(faults: CeleryFaults) -> None:
    app, world = faults.app, faults.world
    app.conf.broker_transport_options = {}
    assert redis_cli(direct(world), "SET", "which", "first") == "OK"
    before = app.conf.broker_url, os.environ["CELERY_BROKER_URL"], os.environ["CACHE_URL"]
    with faults.broker_fails_over():
        first, second = app.conf.broker_url.split(";")
        assert (first, os.environ["CELERY_BROKER_URL"]) == (before[0], app.conf.broker_url)
        assert greeting(first, b"PING\r\n") == "refused"
        assert greeting(second, b"PING\r\n") == "answers"
        assert redis_cli(second, "GET", "which") == ""
        app.send_task("anything", queue="sent-to")
        assert redis_cli(second, "LLEN", "sent-to") == "1"
        assert world.environ["CELERY_BROKER_URL"] == world.url == f"{first};{second}"
        assert second.rpartition("@")[2].partition("/")[0] in world.seal.allow
    assert (app.conf.broker_url, os.environ["CELERY_BROKER_URL"], os.environ["CACHE_URL"]) == before
    assert "sent-to" not in keys(world)
    app.send_task("anything", queue="sent-to")
    assert redis_cli(direct(world), "LLEN", "sent-to") == "1"
    redis_cli(direct(world), "DEL", "sent-to", "which", "_kombu.binding.sent-to")


@pytest.mark.slow
def test_workers_fail_over_too(world_of: MakeWorld) -> None:
    world = world_of(workers=2)
    world.start(WORKERS)
    with (
        world.hold("broker_fails_over"),
        Celery(broker=world.url, set_as_current=False) as client,
        client.connection_for_write() as connection,
    ):
        found = client.control.broadcast("ping", reply=True, limit=2, timeout=5, connection=connection)
        assert sorted(node for each in found for node in each) == ["w1@sandbox", "w2@sandbox"]


def test_an_unknown_fault_names_the_nearest(world: World) -> None:
    with refused("broker_hang is no fault; did you mean broker_hangs?"):
        world.enter("broker_hang")
    with refused("meteor is no fault; there are broker_refuses, "):
        world.enter("meteor")


def test_wrong_arguments_are_told(world: World) -> None:
    with refused("'by'; it takes latency, bandwidth"):
        world.enter("broker_slow", by=3)
    with refused("too many positional arguments; it takes no arguments"):
        world.enter("broker_hangs", 3)
    with refused("host_hangs: missing a required argument: 'host'; it takes host"):
        world.enter("host_hangs")
    with refused("hangs_after: replied=-1 are no bytes"):
        world.enter("broker_hangs_after", -1)
    with refused("slow: latency is seconds, 0 or more"):
        world.enter("broker_slow", bandwidth=0)
    assert greeting(world.url, b"PING\r\n") == "answers"


def test_two_faults_that_exclude_each_other_are_an_error_and_others_are_not(world: World) -> None:
    with world.hold("broker_hangs"), world.hold("backend_refuses"):
        with refused("broker_slow(latency=2) cannot be held beside broker_hangs: end that first"):
            world.enter("broker_slow", latency=2)
        assert greeting(world.url, b"PING\r\n") == "silence"
        assert greeting(world.result, b"PING\r\n") == "refused"
        assert repr(world).endswith(": broker_hangs, backend_refuses>")
    assert greeting(world.url, b"PING\r\n") == greeting(world.result, b"PING\r\n") == "answers"


def test_what_is_not_possible_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with World(SandboxSpec()) as world:
        with refused('no_workers: no app to start workers of; set app = "..." in [tool.celery-health]'):
            world.enter("no_workers")
        with world.hold("broker_hangs"):
            pass
    remedy = 'name what it shall send, such as beat = ["heartbeat"] in [tool.celery-health.sandbox]'
    with World(SandboxSpec(), AppSpec("tiny:app", tmp_path)) as world, refused(remedy):
        world.enter("beat_stalled")


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.needs != (HOST,)])
def test_a_broker_that_is_no_server_has_no_faults(world_of: MakeWorld, name: str) -> None:
    world = world_of("memory")
    assert world.url == "memory://"
    with refused(f"{name}: memory is no server that could fail, nor can a worker or beat reach it; name"):
        world.enter(name)
    with world.hold("host_refuses", "hooks.slack.com"):
        pass


@pytest.mark.parametrize("side", ["broker", "backend"])
def test_a_fake_that_asks_for_no_password_says_so(world_of: MakeWorld, side: str) -> None:
    with refused(f"{side}_wrong_password: fakeredis {version('fakeredis')} asks for no password"):
        world_of("fakeredis").enter(f"{side}_wrong_password")


@pytest.mark.slow
def test_results_that_go_through_the_broker_have_no_faults_of_their_own(world_of: MakeWorld) -> None:
    world = world_of("rabbitmq-server")
    assert world.url.startswith("amqp://")
    assert world.result == "rpc://"
    for name in [name for name in FAULTS if name.startswith("backend_")]:
        broker = name.replace("backend", "broker")
        with refused(f"{name}: results go through the broker here (rpc://), so hold {broker}"):
            world.enter(name)


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["fakeredis", "rabbitmq-server"])
def test_other_brokers_restart_empty_and_fail_over_too(world_of: MakeWorld, broker: str, app: Celery) -> None:
    world = world_of(broker)
    hello = b"*1\r\n$4\r\nPING\r\n" if world.url.startswith("redis") else b"AMQP\x00\x00\x09\x01"
    app.conf.broker_transport_options = {}
    with CeleryFaults(world, app) as faults:
        app.send_task("anything", queue="orders")
        assert waiting(direct(world), "orders") == 1
        with faults.broker_restarts_empty():
            assert waiting(direct(world), "orders") == 0
            assert greeting(world.url, hello, silence=5) == "answers"
        with faults.broker_fails_over():
            first, second = app.conf.broker_url.split(";")
            assert greeting(first, hello) == "refused"
            app.send_task("anything", queue="orders")
            assert (waiting(direct(world), "orders"), waiting(second, "orders")) == (0, 1)
        app.send_task("anything", queue="orders")
        assert waiting(direct(world), "orders") == 1
        with Connection(direct(world)) as connection:
            connection.default_channel.queue_delete("orders")
    assert world.notes == []


def waiting(url: str, queue: str) -> int:
    """How many messages a client of the broker finds in a queue; 0 if there is none."""
    with Connection(url) as connection, suppress(*connection.channel_errors):
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    return 0


@pytest.mark.slow
def test_a_world_that_is_broken_is_replaced_behind_the_same_urls(spec: AppSpec) -> None:
    with World(SandboxSpec(), spec, whole_within=1.0) as world:
        url, result = world.url, world.result
        with world.hold("broker_slow"):
            psutil.Process(world.sandbox._running().ask("hello")["pid"]).kill()  # the keeper, and all with it
            wait_until(lambda: greeting(direct(world), b"PING\r\n") == "refused")
        assert (world.url, world.result) == (url, result)
        assert redis_cli(url, "PING") == "PONG"
        assert [note.partition(":")[0] for note in world.notes] == ["the world was replaced"]


@pytest.mark.slow
def test_workers_and_beat_are_replaced_with_the_world(spec: AppSpec) -> None:
    with World(SandboxSpec(beat=("heartbeat",)), spec, whole_within=5.0) as world:
        world.start(WORKERS, BEAT)
        with world.hold("not_consuming"):
            world.sandbox.end_workers("w1", "broker")
        assert len(world.notes) == 1
        with Celery(broker=world.url, set_as_current=False) as client, client.connection() as connection:
            assert client.control.broadcast("ping", reply=True, limit=1, timeout=5, connection=connection)


def test_a_fault_of_ones_own(world: World) -> None:
    from contextlib import contextmanager

    @contextmanager
    def full(world: World, most: str = "1mb"):  # type: ignore[no-untyped-def]
        redis_cli(direct(world), "CONFIG", "SET", "maxmemory", most)
        yield
        redis_cli(direct(world), "CONFIG", "SET", "maxmemory", "0")

    fault = Fault("broker_full", "The broker has no memory left.", full, ("broker",), ("broker",))
    with world.hold(fault, most="1"), pytest.raises(redis.ResponseError, match="memory"):
        redis.Redis.from_url(world.url).set("anything", "1")
    redis.Redis.from_url(world.url).set("anything", "1")
    redis_cli(direct(world), "DEL", "anything")


@pytest.mark.slow
def test_nothing_is_left_of_it(spec: AppSpec) -> None:
    threads, files = set(threading.enumerate()), len(os.listdir("/dev/fd"))
    with World(SandboxSpec(beat=("heartbeat",)), spec) as world:
        world.start(WORKERS, BEAT)
        remains = Remains.of(world.sandbox)
        second = world.second_broker()
        assert second != world.url
        held = [
            world.enter(name) for name in ("broker_refuses", "backend_hangs", "worker_frozen", "beat_stalled")
        ]
        assert not any(each.over for each in held)
    assert all(each.over for each in held)
    assert remains.alive() == []
    assert greeting(second, b"PING\r\n") == "refused"
    assert set(threading.enumerate()) <= threads
    assert len(os.listdir("/dev/fd")) <= files


@pytest.mark.slow
def test_nothing_is_left_when_its_process_is_killed(spec: AppSpec, tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import SandboxSpec
from pytest_celery_health.sandbox.world import World
world = World(SandboxSpec(), AppSpec("tiny:app", Path({str(spec.root)!r})))
world.enter("worker_frozen")
world.enter("broker_hangs")
print(world.sandbox._running().ask("hello")["pid"], world.sandbox.folder, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        keeper, folder = process.stdout.readline().split()
        remains = Remains(int(keeper), Path(folder))
        assert len(remains.processes) >= 4
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: remains.alive() == [], within=20)


def test_every_fault_has_a_sentence_and_arguments_with_defaults() -> None:
    from inspect import Parameter, signature

    assert len(FAULTS) >= 34
    for name, fault in FAULTS.items():
        assert name == fault.name
        assert fault.what.endswith(".")
        _, *parameters = signature(fault.act).parameters.values()
        for each in parameters:
            assert each.name == "host" or each.default is not Parameter.empty
            assert f"`{each.name}`" in fault.what or each.name == "worker", (name, each.name)
