"""Who is a worker, and what is known of it: real workers on real brokers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from conftest import IMPOSSIBLE
from pytest_celery_health.facts import AskBeat, AskQueues, AskWorkers, Snapshot, Unseen, Worker, Workers
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.target import Target
from pytest_celery_health.project.info import AppInfo
from tests.observe.fleet import Server, StartWorker
from tests.support.timing import in_time, wait_until


def workers_of(
    url: str, *details: str, names: Iterable[str] = (), at_least: int = 0, deadline: float = 5.0, **more: Any
) -> Workers:
    ask = AskWorkers(frozenset(details), frozenset(names), at_least)
    seen = look(Target("t", url, **more), [ask], deadline=deadline).snapshot.workers
    assert isinstance(seen, Workers), seen
    return seen


def named(workers: Workers, name: str) -> Worker:
    return next(worker for worker in workers.answered if worker.name == name)


def names_of(workers: Workers) -> list[str]:
    return [worker.name for worker in workers.answered]


def until_subscribed(url: str, count: int = 1, **more: Any) -> None:
    """Redis' workers say that they are ready a moment before they subscribe."""
    wait_until(lambda: workers_of(url, **more).subscribed == count, what=f"{count} mailboxes")


@pytest.fixture
def app(redis_url: str) -> Celery:
    app = Celery("sender", broker=redis_url, set_as_current=False)
    yield app
    app.close()


def test_nobody_is_nobody_and_nobody_is_waited_for(redis_url: str) -> None:
    assert in_time(lambda: workers_of(redis_url), within=0.5) == Workers((), (), 0)


def test_workers_whose_answers_cannot_be_read_are_told_from_none(
    redis_url: str, start_worker: StartWorker
) -> None:
    pickles = AppInfo("fleet", "5", "", unreadable="workers answer in pickle")

    def seen() -> Workers | Unseen:
        return look(Target("t", redis_url, app=pickles), [AskWorkers()], deadline=5).snapshot.workers

    assert seen() == Workers((), (), 0)
    conf = {"task_serializer": "pickle", "accept_content": ["json", "pickle"]}
    worker = start_worker(redis_url, "w1@x", "-P", "prefork", "-c", "1", **conf)
    wait_until(lambda: seen() == Unseen("workers answer in pickle", never=True))
    worker.kill()
    wait_until(lambda: seen() == Workers((), (), 0))


def test_an_idle_worker_answers_everything(redis_url: str, start_worker: StartWorker) -> None:
    start_worker(redis_url, "w1@x", "-P", "prefork", "-c", "2", "-Q", "a,b")
    until_subscribed(redis_url)
    details = ("active_queues", "stats", "registered", "version", "active", "reserved", "scheduled", "clock")
    workers = workers_of(redis_url, *details)
    (worker,) = workers.answered
    assert worker.name == "w1@x"
    assert worker.queues == ("a", "b")
    assert worker.tasks == {"fleet.add", "fleet.nap"}
    assert (worker.pool, worker.pool_size) == ("prefork", 2)
    assert isinstance(worker.uptime, float)
    assert isinstance(worker.version, str)
    assert worker.version[0].isdigit()
    assert worker.accepted == {}
    assert (worker.active, worker.reserved, worker.scheduled) == ((), (), ())
    assert isinstance(worker.clock_offset, float)
    assert abs(worker.clock_offset) < 1
    assert workers.subscribed == 1


def test_what_nobody_asked_for_is_unseen(redis_url: str, start_worker: StartWorker) -> None:
    start_worker(redis_url)
    until_subscribed(redis_url)
    worker = named(workers_of(redis_url), "w1@x")
    assert all(
        isinstance(fact, Unseen) for fact in (worker.queues, worker.tasks, worker.uptime, worker.active)
    )


def test_tasks_that_run_wait_and_are_scheduled_come_without_their_arguments(
    redis_url: str, start_worker: StartWorker, app: Celery
) -> None:
    start_worker(redis_url, "w1@x", "-P", "threads", "-c", "1")
    until_subscribed(redis_url)
    app.send_task("fleet.nap", (20,), kwargs={})
    app.send_task("fleet.add", ("hunter2", 1))
    app.send_task("fleet.add", (1, 1), countdown=600)

    def held() -> Worker | None:
        worker = named(workers_of(redis_url, "active", "reserved", "scheduled", "stats"), "w1@x")
        return worker if worker.active and worker.reserved and worker.scheduled else None

    worker = wait_until(held)
    assert "hunter2" not in repr(worker)
    assert [task.name for task in worker.active] == ["fleet.nap"]
    assert worker.active[0].running_for is not None
    assert 0 <= worker.active[0].running_for < 20
    assert worker.active[0].id
    assert [(task.name, task.running_for) for task in worker.reserved] == [("fleet.add", None)]
    assert [task.name for task in worker.scheduled] == ["fleet.add"]
    assert worker.accepted == {"fleet.nap": 1, "fleet.add": 1} or worker.accepted == {"fleet.nap": 1}


def test_a_worker_whose_consumer_was_cancelled_answers_and_consumes_nothing(
    redis_url: str, start_worker: StartWorker, app: Celery
) -> None:
    start_worker(redis_url, "w1@x", "-Q", "billing")
    until_subscribed(redis_url)
    assert workers_of(redis_url, "active_queues").consuming("billing") == ("w1@x",)
    app.control.cancel_consumer("billing")
    workers = wait_until(
        lambda: (w := workers_of(redis_url, "active_queues")).consuming("billing") == () and w
    )
    assert named(workers, "w1@x").queues == ()


def test_a_frozen_worker_is_subscribed_and_silent(redis_url: str, start_worker: StartWorker) -> None:
    start_worker(redis_url, "w1@x")
    frozen = start_worker(redis_url, "w2@x")
    until_subscribed(redis_url, 2)
    frozen.freeze()
    workers = workers_of(redis_url, "active_queues")
    assert names_of(workers) == ["w1@x"]
    assert workers.subscribed == 2
    frozen.thaw()
    wait_until(lambda: names_of(workers_of(redis_url)) == ["w1@x", "w2@x"])


def test_a_killed_worker_is_no_mailbox(redis_url: str, start_worker: StartWorker) -> None:
    worker = start_worker(redis_url)
    until_subscribed(redis_url)
    worker.kill()
    until_subscribed(redis_url, 0)


@pytest.mark.slow
def test_a_solo_worker_at_work_is_silent_until_its_task_ends(
    redis_url: str, start_worker: StartWorker, app: Celery
) -> None:
    start_worker(redis_url, "w1@x", "-P", "solo")
    until_subscribed(redis_url)
    app.send_task("fleet.nap", (3,))
    workers = wait_until(lambda: not (w := workers_of(redis_url, deadline=0.5)).answered and w, within=3)
    assert workers.subscribed == 1
    wait_until(lambda: names_of(workers_of(redis_url)) == ["w1@x"])


def test_two_workers_of_one_name_are_two(redis_url: str, start_worker: StartWorker) -> None:
    start_worker(redis_url, "same@x")
    start_worker(redis_url, "same@x")
    until_subscribed(redis_url, 2)
    workers = workers_of(redis_url, "active_queues")
    assert [(worker.name, worker.answers) for worker in workers.answered] == [("same@x", 2)]


def test_beat_that_answers_ping_is_no_worker(redis_url: str, start_beat: StartWorker) -> None:
    import celery

    if celery.VERSION < (5, 7):
        pytest.skip(f"{IMPOSSIBLE}beat answers ping since Celery 5.7")
    start_beat(redis_url, beat_enable_remote_control=True)
    until_subscribed(redis_url)
    workers = in_time(lambda: workers_of(redis_url, "active_queues", "stats"), within=0.5)
    assert workers.answered == ()
    assert len(workers.beats) == 1
    assert workers.beats[0].startswith("celerybeat@")
    snapshot = look(Target("t", redis_url), [AskBeat("ping")], deadline=5).snapshot
    beat = snapshot.beat("ping")
    assert not isinstance(beat, Unseen)
    assert not isinstance(beat.last_seen, Unseen)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"global_keyprefix": "team:"},
        {"fanout_prefix": "/other{db}."},
        {"fanout_prefix": False, "fanout_patterns": False},
        {"sep": ":"},
    ],
    ids=str,
)
def test_the_apps_transport_options_are_respected(
    options: dict[str, Any], redis_url: str, start_worker: StartWorker
) -> None:
    exchange = f"ex{abs(hash(redis_url))}"
    start_worker(redis_url, broker_transport_options=options, control_exchange=exchange)
    until_subscribed(redis_url, options=options, control_exchange=exchange)
    workers = workers_of(redis_url, "active_queues", "clock", options=options, control_exchange=exchange)
    assert named(workers, "w1@x").queues == ("celery",)
    assert isinstance(named(workers, "w1@x").clock_offset, float)
    assert workers_of(redis_url).answered == () or "global_keyprefix" not in options


def test_another_control_exchange_and_another_database_are_other_fleets(
    redis_url: str, redis_server: Server, start_worker: StartWorker
) -> None:
    start_worker(redis_url, control_exchange="other")
    until_subscribed(redis_url, control_exchange="other")
    assert workers_of(redis_url).subscribed == 0
    assert workers_of(redis_server.fresh(), control_exchange="other").subscribed == 0


def own_names(exchange: str) -> dict[str, str]:
    """Configuration of a worker that leaves nothing but what goes with this control exchange."""
    events, queue = f"{exchange}.ev", f"{exchange}.q"
    return {"control_exchange": exchange, "event_exchange": events, "task_default_queue": queue}


def test_rabbitmq_nobody(rabbit_url: str, rabbit_exchange: str) -> None:
    workers = in_time(lambda: workers_of(rabbit_url, control_exchange=rabbit_exchange), within=0.5)
    assert workers == Workers((), (), 0)


def test_rabbitmq_everything(rabbit_url: str, rabbit_exchange: str, start_worker: StartWorker) -> None:
    more = {"control_exchange": rabbit_exchange, "event_exchange": f"{rabbit_exchange}.ev"}
    queue = f"{rabbit_exchange}.q"
    worker = start_worker(rabbit_url, "w1@x", "-P", "prefork", "-c", "2", **own_names(rabbit_exchange))
    details = ("active_queues", "stats", "registered", "version", "active", "reserved", "scheduled", "clock")
    seen = named(workers_of(rabbit_url, *details, **more), "w1@x")
    assert seen.queues == (queue,)
    assert (seen.pool, seen.pool_size) == ("prefork", 2)
    assert isinstance(seen.clock_offset, float)
    assert seen.malformed == ()
    # Once it answered, nobody waits for the quiet period.
    workers = in_time(lambda: workers_of(rabbit_url, names=["w1@x"], **more), within=0.25)
    assert names_of(workers) == ["w1@x"]
    worker.kill()
    wait_until(lambda: workers_of(rabbit_url, **more).subscribed == 0)


@pytest.mark.slow
def test_rabbitmq_tells_a_frozen_worker_from_one_that_is_gone(
    rabbit_url: str, rabbit_exchange: str, start_worker: StartWorker
) -> None:
    frozen = start_worker(rabbit_url, "frozen@x", **own_names(rabbit_exchange))
    frozen.freeze()
    workers = workers_of(rabbit_url, names=["frozen@x", "gone@x"], control_exchange=rabbit_exchange)
    assert workers.answered == ()
    assert workers.silent == {"frozen@x"}


def test_a_vhost_is_another_broker(rabbit_url: str, rabbit_exchange: str, start_worker: StartWorker) -> None:
    start_worker(rabbit_url, **own_names(rabbit_exchange))
    seen = look(
        Target("t", rabbit_url[:-1] + "nowhere", control_exchange=rabbit_exchange), [AskWorkers()], deadline=5
    ).snapshot.workers
    assert seen == Unseen("no vhost 'nowhere' on amqp://guest:***@127.0.0.1:5672/nowhere")


@pytest.mark.slow
def test_memory_counts_its_workers_in_this_process() -> None:
    from celery.contrib.testing.worker import start_worker as embedded

    app = Celery("inside", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(broker_transport_options={"polling_interval": 0.01}, worker_hijack_root_logger=False)
    assert workers_of("memory://").subscribed == 0
    with embedded(app, perform_ping_check=False, pool="solo"):
        workers = wait_until(lambda: (w := workers_of("memory://", "active_queues")).answered and w)
    (worker,) = workers.answered
    assert (worker.queues, workers.subscribed) == (("celery",), 1)


def test_any_transport_that_broadcasts_will_do(tmp_path: Path, start_worker: StartWorker) -> None:
    folder = str(tmp_path / "broker")
    (tmp_path / "broker").mkdir()
    options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": f"{folder}/control"}
    start_worker("filesystem://", broker_transport_options={**options, "polling_interval": 0.02})
    target = Target("t", "filesystem://", options={**options, "polling_interval": 0.02})

    def seen() -> Snapshot | None:
        found = look(target, [AskWorkers(at_least=1), AskQueues(("celery",))], deadline=5).snapshot
        return found if isinstance(found.workers, Workers) and found.workers.answered else None

    found = wait_until(seen)
    assert isinstance(found.workers, Workers)
    assert named(found.workers, "w1@x").queues == ("celery",)
    queues = found.queues(["celery"])
    assert isinstance(queues, Unseen) or isinstance(queues[0].ready, Unseen), "nobody reads its depths yet"


@pytest.mark.slow
def test_workers_that_glance_at_their_mailbox_now_and_then_are_waited_for(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    """kombu's default is a glance each second: who glanced first is not all there is."""
    folder = str(tmp_path / "broker")
    (tmp_path / "broker").mkdir()
    options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": f"{folder}/control"}
    start_worker("filesystem://", "w1@x", broker_transport_options={**options, "polling_interval": 0.02})
    start_worker("filesystem://", "w2@x", broker_transport_options=options)
    target = Target("t", "filesystem://", options=options)
    for _ in range(5):
        seen = look(target, [AskWorkers()], deadline=10).snapshot.workers
        assert isinstance(seen, Workers)
        assert {worker.name for worker in seen.answered} == {"w1@x", "w2@x"}


def test_a_transport_that_cannot_broadcast_never_shows_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORT_ALIASES, "mute", "tests.observe.mute:Transport")
    seen = look(Target("t", "mute://"), [AskWorkers(), AskQueues(("celery",))], deadline=5).snapshot
    assert seen.workers == Unseen("kombu's mute has no remote control", never=True)
