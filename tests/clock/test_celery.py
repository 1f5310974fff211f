"""Tasks and handlers that Celery calls see frozen time, and Celery itself does not."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from celery import Celery, signals
from celery.contrib.testing.worker import start_worker
from celery.schedules import crontab
from freezegun import freeze_time

from pytest_celery_health.clock import CeleryClock
from pytest_celery_health.observe.clock import epoch
from pytest_celery_health.record.in_process import CelerySignals
from tests.clock.conftest import NOON

EPOCH = NOON.timestamp()


def test_a_task_and_its_handlers_see_frozen_time(
    celery_clock: CeleryClock, celery_signals: CelerySignals, app: Celery
) -> None:
    seen: list[tuple[str, float]] = []

    @app.task(bind=True, max_retries=1)
    def charge(self):
        seen.append(("task", time.time()))
        raise self.retry(exc=OSError("no route"))

    @signals.task_prerun.connect(weak=False)
    def begun(**_):
        seen.append(("prerun", time.time()))

    @signals.task_failure.connect(weak=False)
    def failed(**_):
        seen.append(("failure", datetime.now(timezone.utc).timestamp()))

    celery_clock.freeze(NOON)
    celery_signals.run(charge.s(), raises=OSError)
    assert [name for name, _ in seen] == ["prerun", "task", "prerun", "task", "failure"]
    assert {moment for _, moment in seen} == {EPOCH}


def test_with_celery_on_freezeguns_ignore_list_they_see_real_time(
    celery_signals: CelerySignals, app: Celery
) -> None:
    """Why a list of ignored callers is not enough: Celery is between the test and its task."""

    @app.task
    def tell():
        return time.time()

    with freeze_time(NOON, ignore=["celery"]):
        assert tell.run() == EPOCH
        recording = celery_signals.run(tell.s())
    assert abs(recording.result - epoch()) < 60


def test_a_fired_signal_is_handled_in_frozen_time(
    celery_clock: CeleryClock, celery_signals: CelerySignals, app: Celery
) -> None:
    seen = []

    @signals.worker_ready.connect(weak=False)
    def ready(**_):
        seen.append(time.time())

    celery_clock.freeze(NOON)
    celery_signals.fire("worker_ready")
    celery_clock.shift("1d")
    celery_signals.fire("worker_ready")
    assert seen == [EPOCH, EPOCH + 86400]


def test_a_recording_keeps_real_durations_and_order(
    celery_clock: CeleryClock, celery_signals: CelerySignals, app: Celery
) -> None:
    @app.task
    def wait():
        time.sleep(0.02)

    @signals.task_success.connect(weak=False)
    def slow(**_):
        time.sleep(0.02)
        celery_clock.shift("1d")

    celery_clock.freeze(NOON)
    before = time.monotonic()
    recording = celery_signals.run(wait.s())
    assert 0.02 <= recording.expect_handler("slow").duration < 60
    prerun, postrun = recording.expect_signal("task_prerun"), recording.expect_signal("task_postrun")
    assert before < prerun.at < prerun.at + 0.02 <= postrun.at < time.monotonic()


@pytest.fixture
def published(app: Celery) -> list[dict]:
    """Headers of what is published."""
    found: list[dict] = []

    @signals.before_task_publish.connect(weak=False)
    def note(headers, **_):
        found.append(headers)

    return found


def test_what_celery_publishes_is_counted_from_real_time_unless_celery_is_named(
    celery_clock: CeleryClock, celery_signals: CelerySignals, app: Celery, published: list[dict]
) -> None:
    """A worker elsewhere has the real time: a frozen ETA would have it run at once, or never."""

    @app.task
    def later(): ...

    @app.task
    def send():
        later.apply_async(countdown=60, expires=120)
        later.apply_async(eta=datetime.now(timezone.utc) + timedelta(seconds=60))

    def etas() -> list[float]:
        found = [datetime.fromisoformat(each["eta"]).timestamp() for each in published]
        published.clear()
        return found

    celery_clock.freeze(NOON)
    celery_signals.run(send.s())
    expires = datetime.fromisoformat(published[0]["expires"]).timestamp()
    counted, told = etas()
    assert abs(counted - 60 - epoch()) < 30
    assert abs(expires - 120 - epoch()) < 30
    assert told == EPOCH + 60
    with celery_clock.freeze(NOON, also=["celery"]):
        celery_signals.run(send.s())
    assert etas() == [EPOCH + 60, EPOCH + 60]


def test_a_schedule_is_due_by_real_time_or_by_a_clock_of_the_projects_own(
    celery_clock: CeleryClock, app: Celery
) -> None:
    celery_clock.freeze("2026-01-15T02:31:00Z")
    last = celery_clock.now - timedelta(days=1)
    nightly = crontab(hour=2, minute=30, app=app, nowfun=lambda: datetime.now(timezone.utc))
    assert nightly.is_due(last).is_due
    celery_clock.move_to("2026-01-15T02:29:00Z")
    assert not nightly.is_due(celery_clock.now - timedelta(hours=12)).is_due


def test_messages_hold_no_fakes(celery_clock: CeleryClock, redis_url: str) -> None:
    """To a real broker, in each encoding: what is read back is plain."""
    app = Celery("sending", broker=redis_url, set_as_current=False)
    app.conf.update(task_serializer="pickle", accept_content=["pickle", "json"])

    @app.task(name="sending.tell", shared=False)
    def tell(at): ...

    celery_clock.freeze(NOON)
    for serializer in ("pickle", "json"):
        tell.apply_async((datetime.now(timezone.utc),), serializer=serializer)
    with app.connection_for_read() as connection:
        client = connection.default_channel.client
        bodies = [json.loads(each)["body"] for each in client.lrange("celery", 0, -1)]
        queue = connection.SimpleBuffer("celery")
        queue.consumer.accept = {"application/x-python-serialize", "application/json"}
        at = [queue.get(timeout=5).payload[0][0] for _ in bodies]
    assert len(bodies) == 2
    assert [str(each).replace("T", " ") for each in at] == ["2026-01-15 12:00:00+00:00"] * 2
    assert type(at[0]) is type(NOON)
    app.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of redis-py, in Celery's result backend
def test_a_task_in_a_worker_that_was_started_before(celery_clock: CeleryClock, redis_url: str) -> None:
    app = Celery("embedded", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.broker_transport_options = {"polling_interval": 0.05}

    @app.task(name="embedded.tell", shared=False)
    def tell():
        return time.time(), threading.current_thread() is threading.main_thread()

    with start_worker(app, perform_ping_check=False, shutdown_timeout=20):
        real, _ = tell.delay().get(timeout=20)
        celery_clock.freeze(NOON)
        result = tell.delay()
        assert result.get(timeout=20) == [EPOCH, False]
        assert abs(real - epoch()) < 60
        assert abs(result.date_done.timestamp() - epoch()) < 60
    app.close()
