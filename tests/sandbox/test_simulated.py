from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from celery import Celery
from celery.worker import state as worker_state
from celery.worker.control import Panel
from kombu import Connection
from kombu.exceptions import OperationalError

from conftest import IMPOSSIBLE
from pytest_celery_health import RunningTask
from pytest_celery_health.sandbox import brokers
from pytest_celery_health.sandbox.fleet.mailboxes import spelling
from pytest_celery_health.sandbox.fleet.simulated import Fleet
from pytest_celery_health.sandbox.fleet.worker import SimulatedWorker
from tests.support.rabbit import forget

RABBITMQ = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
#: Of our own: others may use the same RabbitMQ.
CONTROL = f"simulated-{os.getpid()}"
DEADLINE = 15.0


def eventually(holds: Callable[[], Any], what: str) -> Any:
    """Wait for a condition; its value."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        value = holds()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come true within {DEADLINE} s")


class Server:
    """A private broker that a test may kill and start again."""

    def __init__(self, name: str, folder: Path) -> None:
        _, self._broker = brokers.choose(name)
        self.launch = self._broker.launch(folder, token_hex(8))
        self.url = self.launch.url
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.launch.argv, env={**os.environ, **self.launch.env}, stdout=subprocess.DEVNULL
        )
        eventually(lambda: self._broker.answers(self.launch), "the broker's answer")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)


@contextmanager
def private(name: str, folder: Path) -> Iterator[Server]:
    try:
        server = Server(name, folder)
    except brokers.UnavailableError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def private_redis(folder: Path) -> Iterator[Server]:
    best = brokers.choose("")[0]
    with private("redis-server" if best == "fakeredis" else best, folder) as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with private_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["redis", "rabbitmq", "fakeredis", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        yield "memory://"
    elif request.param == "rabbitmq":
        yield request.getfixturevalue("rabbitmq")
    elif request.param == "redis":
        yield request.getfixturevalue("redis").url
    else:
        with private("fakeredis", tmp_path) as server:
            yield server.url


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[str]:
    with Connection(RABBITMQ, connect_timeout=2, transport_options={"max_retries": 0}) as connection:
        try:
            connection.connect()
        except OSError as error:
            pytest.skip(f"no RabbitMQ: {error}")
    yield RABBITMQ
    forget(RABBITMQ, CONTROL)


@pytest.fixture
def app(url: str) -> Iterator[Celery]:
    with celery_app(url) as app:
        yield app


@contextmanager
def celery_app(url: str, **conf: Any) -> Iterator[Celery]:
    app = Celery("code under test", broker=url, set_as_current=False)
    app.conf.update(
        {"broker_transport_options": {"polling_interval": 0.01}, "control_exchange": CONTROL, **conf}
    )
    try:
        yield app
    finally:
        app.close()


@pytest.fixture
def fleet(url: str) -> Iterator[Fleet]:
    with Fleet(url, control_exchange=CONTROL) as fleet:
        yield fleet


def ask(app: Celery, command: str, replies: int = 1, **arguments: Any) -> dict[str, Any]:
    """Each worker's answer by its name, once so many have come."""
    answers = app.control.broadcast(command, arguments, reply=True, limit=replies, timeout=DEADLINE)
    return {name: reply for answer in answers for name, reply in answer.items()}


# What a team's own health code does with it.


def find_long_running_tasks(app: Celery, longer_than: float) -> list[str]:
    active = app.control.inspect(destination=["w1@sim"], timeout=DEADLINE).active() or {}
    now = time.time()
    return [t["name"] for tasks in active.values() for t in tasks if now - t["time_start"] > longer_than]


def test_code_under_test_finds_a_stuck_task(app: Celery, fleet: Fleet) -> None:
    fleet.worker(
        "w1@sim",
        active=[RunningTask("shop.report", running_for=301), RunningTask("shop.pay", running_for=299)],
    )
    assert find_long_running_tasks(app, 300) == ["shop.report"]


def test_a_worker_answers_from_the_moment_it_is_added(app: Celery, fleet: Fleet) -> None:
    for number in range(1, 6):
        fleet.worker(f"w{number}@sim")
        assert len(app.control.ping(limit=number, timeout=DEADLINE)) == number


def test_a_hundred_workers_answer_as_one_each(app: Celery, fleet: Fleet) -> None:
    fleet.workers(100, queues=["billing"], pool_size=4)
    answers = ask(app, "active_queues", 100)
    assert sorted(answers) == sorted(f"w{number}@sim" for number in range(1, 101))
    assert {queues[0]["name"] for queues in answers.values()} == {"billing"}


def test_only_those_that_are_meant_answer(app: Celery, fleet: Fleet) -> None:
    fleet.workers(12)
    fleet.worker("other@sim")
    ping = app.control.broadcast("ping", reply=True, destination=["w3@sim"], timeout=DEADLINE)
    assert ping == [{"w3@sim": {"ok": "pong"}}]
    ping = app.control.broadcast(
        "ping", reply=True, pattern="w1*@sim", matcher="glob", limit=4, timeout=DEADLINE
    )
    assert sorted(name for answer in ping for name in answer) == ["w10@sim", "w11@sim", "w12@sim", "w1@sim"]


def test_a_silent_worker_keeps_its_mailbox_and_says_nothing(app: Celery, fleet: Fleet) -> None:
    fleet.worker("w1@sim")
    frozen = fleet.worker("w2@sim", silent=True)
    assert list(ask(app, "ping")) == ["w1@sim"]
    frozen.change(silent=False)
    assert sorted(ask(app, "ping", 2)) == ["w1@sim", "w2@sim"]


@pytest.mark.slow
def test_a_slow_worker_answers_later(app: Celery, fleet: Fleet) -> None:
    fleet.worker("slow@sim", delay=0.5)
    fleet.worker("quick@sim")
    begun = time.monotonic()
    assert list(ask(app, "ping", 2)) == ["quick@sim", "slow@sim"]
    assert time.monotonic() - begun >= 0.5


def test_garbage_has_no_shape_that_celery_knows(app: Celery, fleet: Fleet) -> None:
    fleet.worker("odd@sim", garbage=True)
    assert all(isinstance(ask(app, command)["odd@sim"], str) for command in ("ping", "stats", "active"))


def test_what_a_worker_says_can_change(app: Celery, fleet: Fleet) -> None:
    worker = fleet.worker("w1@sim", accepted={"shop.pay": 1})
    assert ask(app, "stats")["w1@sim"]["total"] == {"shop.pay": 1}
    worker.change(accepted={"shop.pay": 2}, stats={"prefetch_count": 0})
    stats = ask(app, "stats")["w1@sim"]
    assert (stats["total"], stats["prefetch_count"]) == ({"shop.pay": 2}, 0)
    assert worker.state["accepted"] == {"shop.pay": 2}


MOMENT = datetime(2026, 12, 1, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "eta", [MOMENT, MOMENT.timestamp(), int(MOMENT.timestamp()), MOMENT.isoformat()], ids=repr
)
def test_an_eta_in_each_way_to_write_it(redis: Server, eta: Any) -> None:
    with celery_app(redis.url) as app, Fleet(redis.url, control_exchange=CONTROL) as fleet:
        fleet.worker("w1@sim", scheduled=[{"name": "shop.pay", "eta": eta}])
        [entry] = ask(app, "scheduled")["w1@sim"]
        assert datetime.fromisoformat(entry["eta"]) == MOMENT


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"scheduled": [{"name": "a", "eta": 60}]},
            r"scheduled[0]: eta is 60, a time of 1970; write an epoch",
        ),
        ({"scheduled": [{"name": "a", "eta": float("nan")}]}, r"scheduled[0]: eta is nan, which is no time"),
        ({"scheduled": [{"name": "a", "eta": "soon"}]}, r"scheduled[0]: eta is 'soon', which is no time"),
        (
            {"scheduled": [{"name": "a", "eta": datetime(2026, 12, 1)}]},
            "scheduled[0]: eta is 2026-12-01T00:00:00, which has no time zone; write",
        ),
        (
            {"active": ["shop.pay"]},
            "active[0] is 'shop.pay'; write RunningTask('shop.pay', running_for=60), or a mapping:"
            " {'name': 'shop.pay'}",
        ),
        ({"reserved": [7]}, "reserved[0] is 7; write RunningTask("),
        (
            {"active": RunningTask("shop.pay")},
            "active is RunningTask(name='shop.pay', running_for=None, id=''); write a list: [",
        ),
        ({"active": {"name": "shop.pay"}}, "active is {'name': 'shop.pay'}; write a list: ["),
        ({"queues": "billing"}, "queues is 'billing'; write a list: ['billing']"),
        (
            {"active": [{"name": "a", "running_for": "5min"}]},
            "active[0]: running_for is '5min'; write seconds",
        ),
    ],
    ids=str,
)
def test_what_no_worker_holds_is_refused_where_it_is_written(state: dict[str, Any], said: str) -> None:
    with Fleet("memory://") as fleet:
        with pytest.raises(ValueError, match=re.escape(said)):
            fleet.worker("w1@sim", **state)
        assert len(fleet) == 0
        worker = fleet.worker("w1@sim", active=[RunningTask("shop.pay", id="t1")])
        with pytest.raises(ValueError, match=re.escape(said)):
            worker.change(**state, pool_size=7)
        assert worker.state["pool_size"] == 1


def test_a_task_keeps_its_id_and_start(app: Celery, fleet: Fleet) -> None:
    worker = fleet.worker("w1@sim", active=[RunningTask("shop.report", running_for=9)])
    before = ask(app, "active")["w1@sim"]
    worker.change(silent=False, queues=["more"])
    app.control.add_consumer("later", reply=True, limit=1, timeout=DEADLINE)
    assert ask(app, "active")["w1@sim"] == before


def test_a_terminated_task_does_not_come_back(app: Celery, fleet: Fleet) -> None:
    worker = fleet.worker(
        "w1@sim", active=[RunningTask("shop.report", id="r1"), RunningTask("shop.pay", id="r2")]
    )
    app.control.revoke("r1", terminate=True, reply=True, limit=1, timeout=DEADLINE)
    worker.change(clock_offset=5.0)
    assert [task["id"] for task in ask(app, "active")["w1@sim"]] == ["r2"]


def test_what_it_was_told_to_revoke_can_be_said(app: Celery, fleet: Fleet) -> None:
    worker = fleet.worker("w1@sim", revoked=["r1"])
    app.control.revoke("r2", reply=True, limit=1, timeout=DEADLINE)
    assert app.control.inspect(limit=1, timeout=DEADLINE).revoked() == {"w1@sim": ["r1", "r2"]}
    assert [*worker.state["revoked"]] == ["r1", "r2"]


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_pool_that_cannot_grow_says_so(redis: Server, pool: str) -> None:
    with celery_app(redis.url) as app, Fleet(redis.url, control_exchange=CONTROL) as fleet:
        fleet.worker("w1@sim", pool=pool)
        told = ask(app, "pool_grow")["w1@sim"]
        assert told == {"error": "AttributeError(\"'TaskPool' object has no attribute 'grow'\")"}


def test_any_field_of_a_task_can_be_said(app: Celery, fleet: Fleet) -> None:
    fleet.worker(
        "w1@sim", active=[{"name": "shop.pay", "args": [7], "time_start": None}], registered=["b", "a"]
    )
    (task,) = ask(app, "active")["w1@sim"]
    assert (task["args"], task["time_start"], task["type"]) == ([7], None, "shop.pay")
    assert ask(app, "active", safe=True)["w1@sim"][0]["args"] == "[7]"
    assert ask(app, "registered") == {"w1@sim": ["a", "b"]}


def test_its_clock_may_be_off(app: Celery, fleet: Fleet) -> None:
    fleet.worker("w1@sim", active=[RunningTask("shop.report", running_for=10)], clock_offset=600)
    (task,) = ask(app, "active")["w1@sim"]
    assert 585 < task["time_start"] - time.time() < 595


def test_a_cancelled_consumer_leaves_the_worker_answering(app: Celery, fleet: Fleet) -> None:
    fleet.worker("w1@sim", queues=["billing"])
    app.control.cancel_consumer("billing", reply=True, limit=1, timeout=DEADLINE)
    assert ask(app, "active_queues") == {"w1@sim": []}
    app.control.add_consumer("later", reply=True, limit=1, timeout=DEADLINE)
    assert [queue["name"] for queue in ask(app, "active_queues")["w1@sim"]] == ["later"]
    assert ask(app, "ping") == {"w1@sim": {"ok": "pong"}}


def test_a_revoked_task_ends_when_it_is_to_be_terminated(app: Celery, fleet: Fleet) -> None:
    fleet.worker("w1@sim", active=[RunningTask("shop.report", 5, id="r1")])
    app.control.revoke("r1", terminate=True, reply=True, limit=1, timeout=DEADLINE)
    assert ask(app, "active") == {"w1@sim": []}


def test_a_worker_leaves_when_stopped_or_shut_down(app: Celery, fleet: Fleet) -> None:
    first, _, _ = fleet.workers(3)
    first.stop()
    first.stop()
    assert sorted(ask(app, "ping", 2)) == ["w2@sim", "w3@sim"]
    app.control.shutdown(destination=["w2@sim"])
    eventually(lambda: len(fleet) == 1, "the end of w2")
    assert list(ask(app, "ping")) == ["w3@sim"]


def test_a_beat_answers_ping_only(app: Celery, fleet: Fleet) -> None:
    fleet.beat("celerybeat@sim")
    fleet.worker("w1@sim")
    assert sorted(ask(app, "ping", 2)) == ["celerybeat@sim", "w1@sim"]
    assert list(ask(app, "stats")) == ["w1@sim"]


def test_further_commands_can_be_scripted(app: Celery, fleet: Fleet) -> None:
    fleet.worker("w1@sim", replies={"shelves": 3, "double": lambda number: number * 2, "ping": "gone"})
    assert ask(app, "shelves") == {"w1@sim": 3}
    assert ask(app, "double", number=4) == {"w1@sim": 8}
    assert ask(app, "ping") == {"w1@sim": "gone"}
    assert ask(app, "nonsense") == {"w1@sim": {"error": "KeyError('nonsense')"}}


def test_a_mistyped_state_is_refused(fleet: Fleet) -> None:
    with pytest.raises(TypeError, match="has no quueues; it has active, "):
        fleet.worker("w1@sim", quueues=["billing"])  # type: ignore[call-arg]
    assert len(fleet) == 0


@pytest.mark.slow
def test_nothing_is_left(url: str) -> None:
    before = traces(url)
    threads = set(threading.enumerate())
    with celery_app(url) as app:
        with Fleet(url, control_exchange=CONTROL) as fleet:
            fleet.workers(5)
            ask(app, "ping", 5)
            assert traces(url) != before
        fleet.close()
        assert len(fleet) == 0
        assert app.control.ping(timeout=0.3) == []
    assert set(threading.enumerate()) <= threads
    eventually(lambda: traces(url) == before, "an empty broker")


def traces(url: str) -> list[str]:
    """Mailboxes and keys on the broker, but for the clients' own."""
    with Connection(url, transport_options={"polling_interval": 0.01}) as connection:
        if url.startswith("redis"):
            client = connection.default_channel.client
            keys = [key.decode() for key in client.scan_iter()]
            mailboxes = client.publish(f"/0.{CONTROL}.pidbox", "")
            return [f"{mailboxes} mailboxes", *(key for key in keys if "@sim." in key)]
        if url.startswith("amqp"):
            found = []
            for number in range(1, 6):
                try:
                    connection.channel().queue_declare(f"w{number}@sim.{CONTROL}.pidbox", passive=True)
                except connection.channel_errors as error:
                    if "RESOURCE_LOCKED" in str(error):
                        found.append(f"w{number}")
            return found
        channel = connection.default_channel
        bound = channel.state.exchanges.get(f"{CONTROL}.pidbox", {"table": []})["table"]
        return [*bound, *(queue for queue in channel.queues if "@sim." in queue)]


# Redis: what a client can see of the mailboxes.


def test_publish_counts_every_mailbox(redis: Server) -> None:
    with Connection(redis.url) as connection, Fleet(redis.url) as fleet:
        client = connection.default_channel.client
        for count in (1, 2, 1002):
            fleet.workers(count - len(fleet), name=f"{count}-{{}}@sim")
            assert client.publish("/0.celery.pidbox", "") == count
        clients = [line for line in client.client_list() if line["psub"] != "0"]
        assert [line["psub"] for line in clients] == ["1002"]


def test_a_thousand_workers_lose_no_request(redis: Server) -> None:
    with celery_app(redis.url) as app, Fleet(redis.url, control_exchange=CONTROL) as fleet:
        names = {worker.name for worker in fleet.workers(1000)}
        for command in ("ping", "stats", "active_queues"):
            assert set(ask(app, command, 1000)) == names


def test_each_spelling_matches_the_topic_alone(redis: Server) -> None:
    topic = "/0.celery.pidbox"
    spellings = [spelling(topic, number) for number in range(2000)]
    assert len(set(spellings)) == 2000
    with Connection(redis.url) as connection:
        client = connection.default_channel.client
        listener = client.pubsub()
        listener.psubscribe(*spellings[:50], spelling("odd[*]topic?\\-", 7))
        eventually(lambda: client.publish(topic, "") == 50, "50 subscriptions")
        assert client.publish("odd[*]topic?\\-", "") == 1
        assert [client.publish(f"{topic}{tail}", "") for tail in ("x", "*", "]")] == [0, 0, 0]
        assert client.publish(topic.replace("celery", "celerx"), "") == 0
        listener.close()
    with pytest.raises(ValueError, match="too few characters"):
        spelling("ab", 9)


def test_two_workers_of_one_name_are_two(redis: Server) -> None:
    with celery_app(redis.url) as app, Fleet(redis.url, control_exchange=CONTROL) as fleet:
        fleet.worker("twin@sim")
        fleet.worker("twin@sim")
        pong = {"twin@sim": {"ok": "pong"}}
        assert app.control.broadcast("ping", reply=True, limit=2, timeout=DEADLINE) == [pong, pong]


def test_a_key_prefix_and_an_exchange_of_the_app_are_respected(redis: Server) -> None:
    options = {"global_keyprefix": "shop:", "polling_interval": 0.01}
    conf = {"broker_transport_options": options, "control_exchange": "shopctl"}
    with (
        celery_app(redis.url) as plain,
        Fleet(redis.url, control_exchange="shopctl", options=options) as fleet,
    ):
        fleet.worker("w1@sim")
        app = Celery("prefixed", broker=redis.url, set_as_current=False)
        app.conf.update(conf)
        assert ask(app, "ping") == {"w1@sim": {"ok": "pong"}}
        app.close()
        assert plain.control.ping(timeout=0.3) == []


def test_the_fleet_comes_back_to_a_broker_that_was_gone(tmp_path: Path) -> None:
    with private("redis-server", tmp_path) as server, Fleet(server.url, control_exchange=CONTROL) as fleet:
        fleet.workers(3)
        server.stop()
        server.start()
        with celery_app(server.url) as app:
            eventually(lambda: len(app.control.ping(limit=3, timeout=0.2)) == 3, "three workers")


def test_a_broker_that_is_not_there_is_an_error_at_once() -> None:
    port = brokers.free_port()
    with Fleet(f"redis://:hunter2@127.0.0.1:{port}/0") as fleet:
        with pytest.raises(OperationalError) as refused:
            fleet.worker("w1@sim")
        assert "hunter2" not in f"{refused.value!r} {fleet!r}"


# RabbitMQ: what its rules about names make of it.


def test_a_name_that_another_connection_has_is_refused(rabbitmq: str) -> None:
    with (
        Fleet(rabbitmq, control_exchange=CONTROL) as first,
        Fleet(rabbitmq, control_exchange=CONTROL) as second,
        celery_app(rabbitmq) as app,
    ):
        first.worker("taken@sim")
        second.worker("free@sim")
        with pytest.raises(Exception, match="RESOURCE_LOCKED"):
            second.worker("taken@sim")
        assert len(second) == 1
        assert sorted(ask(app, "ping", 2)) == ["free@sim", "taken@sim"]


# The real worker is the measure.

REAL = """
from celery import Celery
app = Celery("real", broker={url!r}, set_as_current=False)
app.conf.update(broker_transport_options={{"polling_interval": 0.01}}, control_exchange={control!r})

@app.task(name="shop.nap")
def nap(seconds):
    import time
    time.sleep(seconds)
"""


@pytest.fixture(scope="module")
def another_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For what outlives a test: in another's broker it would answer there too."""
    with private_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def replies(
    another_redis: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Any, Any]]]:
    """What a real worker and a simulated one answer to each command, asked by the same client."""
    redis = another_redis
    folder = tmp_path_factory.mktemp("real")
    (folder / "real.py").write_text(textwrap.dedent(REAL.format(url=redis.url, control=CONTROL)))
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "real",
        "worker",
        "-c",
        "1",
        "-n",
        "real@sim",
        "-l",
        "ERROR",
    ]
    worker = subprocess.Popen([*command, "--without-mingle"], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        options = {"polling_interval": 0.01}
        with (
            celery_app(redis.url) as app,
            Fleet(redis.url, options=options, control_exchange=CONTROL) as fleet,
        ):
            for name, countdown in {"s1": 0, "s2": 0, "s3": 3600}.items():
                app.send_task("shop.nap", (60,), task_id=name, countdown=countdown)
            for command in ("active", "reserved", "scheduled"):
                eventually(lambda command=command: ask_one(app, "real@sim", command), command)
            simulated = fleet.worker(
                "simulated@sim",
                active=[{"name": "shop.nap", "args": [60], "id": "s1"}],
                reserved=[{"name": "shop.nap", "args": [60], "id": "s2"}],
                scheduled=[{"name": "shop.nap", "args": [60], "id": "s3"}],
                accepted={"shop.nap": 2},
            )
            yield {
                **pairs(app, "ping", "active", "reserved", "scheduled", "revoked", "registered"),
                **pairs(app, "stats", "active_queues", "conf", "clock", "report", "nonsense", "heartbeat"),
                "hello": tuple(
                    {**answer, "revoked": [*answer["revoked"]]}  # a mapping before Celery 5.7
                    for answer in pairs(app, "hello", from_node="me@sim")["hello"]
                ),
                **pairs(app, "revoke", task_id="unknown"),
                **pairs(app, "add_consumer", queue="more"),
                **pairs(app, "cancel_consumer", queue="more"),
                **pairs(app, "enable_events"),
                **pairs(app, "disable_events"),
                **pairs(app, "pool_restart", "autoscale", "memsample", "memdump", "objgraph"),
                **pairs(app, "rate_limit", task_name="shop.nap", rate_limit="1/m"),
                **pairs(app, "time_limit", task_name="unknown", soft=1, hard=2),
                **pairs(app, "revoke_by_stamped_headers", headers={"customer": "7"}),
                "query_task": (
                    [*ask_one(app, "real@sim", "query_task", ids=["s1", "no"]).values()],
                    [*ask_one(app, "simulated@sim", "query_task", ids=["s1", "no"]).values()],
                ),
                **{f"then {name}": afterwards(app, *step) for name, step in EFFECTS.items()},
                "an event": tuple(heartbeat(app, name) for name in ("real@sim", "simulated@sim")),
            }
            simulated.stop()
    finally:
        worker.kill()
        worker.wait(DEADLINE)


def ask_one(app: Celery, name: str, command: str, **arguments: Any) -> Any:
    answers = app.control.broadcast(command, arguments, reply=True, destination=[name], timeout=2)
    return answers[0][name] if answers else None


def pairs(app: Celery, *commands: str, **arguments: Any) -> dict[str, tuple[Any, Any]]:
    return {
        command: (
            ask_one(app, "real@sim", command, **arguments),
            ask_one(app, "simulated@sim", command, **arguments),
        )
        for command in commands
    }


Seen = Callable[[Any], Any]


def afterwards(
    app: Celery, command: str, arguments: dict[str, Any], then: str, asked: dict[str, Any], seen: Seen
) -> tuple[Any, Any]:
    """What each replies to a command, and what is seen of it in a later answer, for which a real one takes a
    while."""
    said = [*pairs(app, command, **arguments)[command]]
    for each in said:
        if isinstance(each, dict):
            each.pop("clock", None)
            if "revoked" in each:
                each["revoked"] = [*each["revoked"]]  # a mapping before Celery 5.7
    until = time.monotonic() + DEADLINE
    while True:
        later = tuple(seen(each) for each in pairs(app, then, **asked)[then])
        if later[0] == later[1] or time.monotonic() > until:
            return (said[0], later[0]), (said[1], later[1])


def ids(answer: Any) -> list[str]:
    return sorted(each if isinstance(each, str) else each.get("request", each)["id"] for each in answer)


def by_name(queues: Any) -> Any:
    return sorted(queues, key=lambda queue: str(queue["name"]))


def size(stats: Any) -> Any:
    pool = stats["pool"]
    return pool["max-concurrency"], len(pool["processes"]), stats["prefetch_count"]


def itself(answer: Any) -> Any:
    return answer


#: Commands, each with what shows its effect. They follow each other.
EFFECTS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], Seen]] = {
    "revoke": ("revoke", {"task_id": "r1"}, "revoked", {}, ids),
    "revoke another": ("revoke", {"task_id": ["r2"]}, "dump_revoked", {}, ids),
    "hello after revoke": ("ping", {}, "hello", {"from_node": "me@sim"}, lambda told: ids(told["revoked"])),
    "hello that brings revoked": ("hello", {"from_node": "me@sim", "revoked": ["r0"]}, "revoked", {}, ids),
    "revoke what is scheduled": ("revoke", {"task_id": "s3"}, "scheduled", {}, ids),
    "terminate what is scheduled": ("revoke", {"task_id": "s3", "terminate": True}, "scheduled", {}, ids),
    "terminate what is unknown": ("terminate", {"task_id": "no", "signal": "KILL"}, "revoked", {}, ids),
    "terminate by no signal": ("terminate", {"task_id": "no", "signal": "SIGNONE"}, "revoked", {}, ids),
    "stamped": (
        "revoke_by_stamped_headers",
        {"headers": ["customer=7"], "terminate": True},
        "active",
        {},
        ids,
    ),
    "add_consumer": ("add_consumer", {"queue": "later"}, "active_queues", {}, by_name),
    "add_consumer twice": ("add_consumer", {"queue": "later"}, "active_queues", {}, by_name),
    "add_consumer of a topic": (
        "add_consumer",
        {"queue": "news", "exchange": "press", "exchange_type": "topic", "routing_key": "a.#"},
        "active_queues",
        {},
        by_name,
    ),
    "cancel_consumer": ("cancel_consumer", {"queue": "later"}, "active_queues", {}, by_name),
    "cancel_consumer of a topic": ("cancel_consumer", {"queue": "news"}, "active_queues", {}, by_name),
    "cancel_consumer of none": ("cancel_consumer", {"queue": "none"}, "active_queues", {}, by_name),
    "consumers come and go": ("ping", {}, "active", {}, ids),
    "rate_limit": (
        "rate_limit",
        {"task_name": "shop.nap", "rate_limit": "2/m"},
        "registered",
        {},
        itself,
    ),
    "rate_limit of none": ("rate_limit", {"task_name": "no", "rate_limit": "1/m"}, "registered", {}, itself),
    "rate_limit of no rate": (
        "rate_limit",
        {"task_name": "shop.nap", "rate_limit": "often"},
        "registered",
        {},
        itself,
    ),
    "no rate_limit": ("rate_limit", {"task_name": "shop.nap", "rate_limit": None}, "registered", {}, itself),
    "time_limit": (
        "time_limit",
        {"task_name": "shop.nap", "soft": 1, "hard": 2},
        "registered",
        {"taskinfoitems": ["time_limit", "soft_time_limit"]},
        itself,
    ),
    "registered with its own": ("ping", {}, "registered", {"builtins": True, "taskinfoitems": ["_"]}, itself),
    "pool_grow": ("pool_grow", {"n": 2}, "stats", {}, size),
    # When the process has gone is up to a real worker's own rounds.
    "pool_shrink": ("pool_shrink", {"n": 1}, "stats", {}, lambda stats: size(stats)[::2]),
    "pool_shrink below what is busy": (
        "pool_shrink",
        {"n": 9},
        "stats",
        {},
        lambda stats: stats["pool"]["max-concurrency"],
    ),
    "enable_events": ("enable_events", {}, "enable_events", {}, itself),
    "disable_events": ("disable_events", {}, "disable_events", {}, itself),
    "terminate": (
        "terminate",
        {"task_id": "s1", "signal": "KILL"},
        "active",
        {},
        lambda active: "s1" in ids(active),
    ),
}


def heartbeat(app: Celery, name: str) -> Any:
    """The event that a worker sends when it is told to, which is not the one that it sends by itself."""
    seen: list[Any] = []

    def told(event: Any) -> bool:
        return bool(event["hostname"] == name and event["freq"] == 5)

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"worker-heartbeat": seen.append})
        with receiver.consumer_context() as (connection, _, _):
            until = time.monotonic() + DEADLINE
            while not any(map(told, seen)) and time.monotonic() < until:
                app.control.broadcast("heartbeat", destination=[name])
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.2)
    return next(filter(told, seen))


def shape(value: Any) -> Any:
    """Keys and types, all the way down."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value).__name__


#: Commands whose answers are compared below, by words or shape; `shutdown` and `election` have none.
WORDS = (
    *("enable_events", "disable_events", "pool_restart", "autoscale"),
    *("objgraph", "rate_limit", "time_limit", "revoke_by_stamped_headers"),
)
SHAPES = (
    *("ping", "active", "reserved", "scheduled", "revoked", "registered", "stats", "active_queues", "clock"),
    *("report", "nonsense", "heartbeat", "hello", "revoke", "add_consumer", "cancel_consumer"),
    *("query_task", "memsample", "memdump"),
)
ALIKE = {*WORDS, *SHAPES, "conf", "election", "shutdown"}


@pytest.mark.slow
@pytest.mark.parametrize("command", WORDS)
def test_it_says_the_words_of_a_real_worker(replies: dict[str, tuple[Any, Any]], command: str) -> None:
    real, simulated = replies[command]
    assert simulated == real


@pytest.mark.slow
@pytest.mark.parametrize("step", EFFECTS)
def test_a_command_changes_later_answers_as_a_real_workers(
    replies: dict[str, tuple[Any, Any]], step: str
) -> None:
    if step == "terminate what is scheduled" and not hasattr(worker_state, "scheduled_requests"):
        pytest.skip(f"{IMPOSSIBLE}this Celery finds no scheduled task by its id")
    real, simulated = replies[f"then {step}"]
    assert simulated == real


def test_a_command_that_is_told_to_each_worker_is_one_of_these() -> None:
    """No command of the installed Celery is without a comparison."""
    compared = {command for command, _, then, _, _ in EFFECTS.values() for command in (command, then)}
    assert {*Panel.meta} - compared - ALIKE == set()


def test_it_knows_every_command_that_celery_has() -> None:
    with Fleet("memory://") as fleet:
        worker = fleet.worker("w1@sim")
        assert "KeyError" in str(worker.serialised("nonsense", {}))
        answers = {each: str(worker.serialised(each, {})) for each in Panel.data if each != "shutdown"}
    assert [each for each, answer in answers.items() if "KeyError" in answer] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", SHAPES)
def test_answers_have_the_shape_of_a_real_workers(replies: dict[str, tuple[Any, Any]], command: str) -> None:
    real, simulated = replies[command]
    assert real is not None or command == "heartbeat"
    assert shape(simulated) == shape(real)


def test_a_heartbeat_event_has_the_shape_of_a_real_workers(replies: dict[str, tuple[Any, Any]]) -> None:
    real, simulated = replies["an event"]
    assert shape(simulated) == shape(real)


@pytest.mark.slow
def test_conf_holds_what_it_is_told_and_no_password(
    replies: dict[str, tuple[Any, Any]], redis: Server
) -> None:
    real, simulated = replies["conf"]
    assert simulated["broker_url"] == real["broker_url"]
    assert shape(simulated).items() <= shape(real).items()


def test_a_worker_is_told_from_another_by_its_repr_alone(redis: Server) -> None:
    with Fleet(redis.url) as fleet:
        worker = fleet.worker("w1@sim")
        assert isinstance(worker, SimulatedWorker)
        assert (repr(worker), repr(fleet)) == ("<simulated worker w1@sim>", "<fleet of 1 simulated workers>")
        assert [each.name for each in fleet] == ["w1@sim"]
