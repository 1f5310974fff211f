"""Queues that a fleet fills: counted and read as real ones, by whoever reads them, and gone at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from celery import Celery, signals
from celery.contrib.testing.worker import start_worker
from kombu import Connection, Queue
from redis import Redis

from pytest_celery_health.facts import AskQueues, AskWorkers
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.target import Target
from pytest_celery_health.sandbox.fleet.here import CeleryFleet
from pytest_celery_health.sandbox.fleet.simulated import Fleet
from tests.fleet.conftest import StartFleet
from tests.support.timing import in_time


@pytest.fixture
def redis(best: CeleryFleet) -> Iterator[Redis]:
    with Redis.from_url(best.url) as client:
        yield client


def depth(app: Celery, queue: str) -> tuple[int, int]:
    """Ready messages, and consumers."""
    with app.connection() as connection:
        declared = connection.default_channel.queue_declare(queue=queue, passive=True)
        return declared.message_count, declared.consumer_count


def test_a_queue_holds_what_was_put_there(app: Celery, fleet: CeleryFleet, name: str) -> None:
    ids = fleet.queue(name, ready=1204)
    assert (len(set(ids)), depth(app, name)) == (1204, (1204, 0))
    fleet.queue(name, priorities={0: 3, 9: 2})
    assert depth(app, name) == (1209, 0)


def test_its_messages_are_tasks(app: Celery, fleet: CeleryFleet, name: str) -> None:
    (wanted,) = fleet.queue(name, ready=1, task="shop.refund", args=(7,), kwargs={"why": "late"})
    with Connection(app.conf.broker_url) as connection:
        queue = connection.SimpleQueue(name)
        message = queue.get(timeout=10)
        message.ack()
        queue.close()
    assert (message.headers["id"], message.headers["task"]) == (wanted, "shop.refund")
    assert message.payload[:2] == [[7], {"why": "late"}]
    assert message.properties["correlation_id"] == wanted


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # Celery's own
@pytest.mark.parametrize("broker", ["", pytest.param("memory", marks=pytest.mark.slow)])
def test_a_real_worker_runs_them(app: Celery, start_fleet: StartFleet, broker: str, name: str) -> None:
    fleet = start_fleet(broker)
    wanted = {*fleet.queue(name, ready=2), *fleet.queue(name, priorities={9: 1}, eta=-3600)}
    over = fleet.queue(name, ready=1, expires=-1)
    ran: dict[str, str] = {}

    def note(sender: object, task_id: str, state: str, **_: object) -> None:
        ran[task_id] = state

    signals.task_postrun.connect(note)
    try:
        app.conf.worker_hijack_root_logger = False
        with start_worker(app, pool="solo", queues=[name], perform_ping_check=False):
            until = time.monotonic() + 20
            while len(ran) < 3 and time.monotonic() < until:
                time.sleep(0.01)
    finally:
        signals.task_postrun.disconnect(note)
    assert ran == dict.fromkeys(wanted, "SUCCESS")
    assert not ran.keys() & set(over)


def test_each_priority_of_redis_has_its_list(best: CeleryFleet, redis: Redis) -> None:
    best.queue("billing", ready=1, priorities={0: 3, 3: 4, 9: 2})
    assert redis.llen("billing") == 4
    assert {key: redis.llen(key) for key in redis.keys("billing*")} == {
        b"billing": 4,
        b"billing\x06\x163": 4,
        b"billing\x06\x169": 2,
    }


def test_what_is_unacknowledged_on_redis_is_of_an_age(best: CeleryFleet, redis: Redis) -> None:
    best.queue("billing", ready=1, unacked=3, unacked_for=600)
    best.queue("billing", unacked=1, unacked_for=30)
    assert redis.llen("billing") == 1
    ages = sorted(time.time() - score for _, score in redis.zrange("unacked_index", 0, -1, withscores=True))
    assert ages == pytest.approx([30, 600, 600, 600], abs=5)
    for raw in redis.hvals("unacked"):
        message, exchange, key = json.loads(raw)
        assert (exchange, key, message["headers"]["task"]) == ("", "billing", "shop.pay")


def test_kombu_restores_what_is_unacknowledged_for_too_long(app: Celery, best: CeleryFleet) -> None:
    """As it would restore what a worker that is gone had taken: it is the same to kombu."""
    best.queue("billing", unacked=2, unacked_for=7200)
    with app.connection() as connection:
        connection.default_channel.qos.restore_visible(num=10)
    assert depth(app, "billing") == (2, 0)


def test_what_is_unacknowledged_on_rabbitmq_is_held_by_a_consumer(
    app: Celery, start_fleet: StartFleet, name: str
) -> None:
    fleet = start_fleet("rabbitmq")
    fleet.queue(name, ready=2, unacked=3)
    assert depth(app, name) == (2, 1)


@pytest.mark.slow
def test_rabbitmq_has_all_of_them_before_anybody_asks(
    app: Celery, start_fleet: StartFleet, name: str
) -> None:
    """It answers with a queue's length while it still puts what was published before."""
    app.conf.task_queues = [Queue(name, max_priority=9)]
    fleet = start_fleet("rabbitmq")
    for turn in range(20):
        fleet.queue(name, priorities=dict.fromkeys((0, 3, 6, 9), 250))
        assert depth(app, name) == (1000 * (turn + 1), 0)


def test_the_layout_of_the_app_is_kept(app: Celery, start_fleet: StartFleet) -> None:
    app.conf.broker_transport_options = {
        "global_keyprefix": "shop:",
        "sep": "|",
        "priority_steps": [0, 5],
        "unacked_key": "held",
    }
    fleet = start_fleet()
    fleet.queue("billing", priorities={9: 2}, unacked=1)
    with Redis.from_url(fleet.url) as client:
        assert client.llen("shop:billing|5") == 2
        assert client.hlen("shop:held") == 1


def test_times_are_what_a_message_carries(app: Celery, best: CeleryFleet) -> None:
    noon = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
    best.queue("billing", ready=1, eta=noon, expires=-60)
    with app.connection() as connection:
        message = connection.SimpleQueue("billing").get(timeout=10)
    assert message.headers["eta"] == noon.isoformat()
    left = datetime.fromisoformat(message.headers["expires"]) - datetime.now(timezone.utc)
    assert timedelta(seconds=-70) < left < timedelta(seconds=-59)


def test_an_app_of_the_older_protocol(app: Celery, best: CeleryFleet) -> None:
    app.conf.task_protocol = 1
    ids = best.queue("billing", ready=2)
    with app.connection() as connection:
        queue = connection.SimpleQueue("billing")
        assert [queue.get(timeout=10).payload["id"] for _ in range(2)] == ids


def test_the_app_does_not_notice(app: Celery, best: CeleryFleet) -> None:
    told = []

    def note(**_: object) -> None:
        told.append(1)

    signals.before_task_publish.connect(note)
    try:
        best.queue("billing", ready=3, unacked=1)
    finally:
        signals.before_task_publish.disconnect(note)
    assert not told
    assert "billing" not in app.amqp.queues


def test_an_empty_queue_is_there_where_a_broker_has_such(app: Celery, fleet: CeleryFleet, name: str) -> None:
    fleet.queue(name)
    with app.connection() as connection, connection.channel() as channel:
        if connection.transport.driver_type == "redis":  # which has no key for it
            with pytest.raises(connection.channel_errors):
                channel.queue_declare(queue=name, passive=True)
        else:
            assert channel.queue_declare(queue=name, passive=True).message_count == 0


def test_fewer_than_none_is_refused(best: CeleryFleet) -> None:
    for wrong in ({"ready": -1}, {"unacked": -1}, {"priorities": {3: -1}}):
        with pytest.raises(ValueError, match="a queue cannot hold -1 messages"):
            best.queue("billing", **wrong)


@pytest.mark.parametrize("broker", ["", "rabbitmq"])
def test_the_look_of_this_plugin_sees_what_is_there(
    app: Celery, start_fleet: StartFleet, broker: str, name: str
) -> None:
    fleet = start_fleet(broker)
    fleet.workers(3, queues=[name])
    fleet.beat("beat@sim")
    fleet.queue(name, ready=5, priorities={9: 2}, unacked=3, unacked_for=600)
    target = Target(
        "fleet", fleet.url, app.conf.broker_transport_options, control_exchange=app.conf.control_exchange
    )
    asks = [AskWorkers(frozenset({"active_queues"}), at_least=3), AskQueues((name,), unacked=True)]
    seen = look(target, asks, deadline=10).snapshot
    assert sorted(worker.name for worker in seen.workers.answered) == ["w1@sim", "w2@sim", "w3@sim"]
    assert seen.workers.beats == ("beat@sim",)
    assert sorted(seen.workers.consuming(name)) == ["w1@sim", "w2@sim", "w3@sim"]
    assert [queue.ready for queue in seen.queues([name])] == [7]
    if not broker:
        assert seen.unacked.count == 3
        assert seen.unacked.oldest == pytest.approx(600, abs=10)


def test_nothing_is_left(app: Celery, fleet: CeleryFleet, name: str) -> None:
    fleet.worker("w1@sim")
    fleet.queue(name, ready=3, unacked=2)
    url, options = fleet.url, app.conf.broker_transport_options
    fleet.__exit__(None, None, None)
    assert app.conf.broker_url == "redis://broker.invalid/0"
    with Connection(url, transport_options=options) as connection, connection.channel() as channel:
        if connection.transport.driver_type == "memory":
            assert name not in channel.queues
        else:
            with pytest.raises(connection.channel_errors):
                channel.queue_declare(queue=name, passive=True)
        if connection.transport.driver_type == "redis":
            left = channel.client.keys("*")
            assert [key for key in left if not key.startswith((b"_kombu.binding", b"unacked"))] == []


@pytest.mark.slow
def test_many_workers_do_not_slow_a_fakes_writes_down(start_fleet: StartFleet) -> None:
    """It remembers mailboxes that have gone, too."""
    fleet = start_fleet("fakeredis")
    for exchange in ("shop", "celery"):
        with Fleet(fleet.url, control_exchange=exchange) as others:
            others.workers(1000)
    in_time(lambda: fleet.queue("orders", ready=200), 3)
