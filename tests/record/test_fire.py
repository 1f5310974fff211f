"""Firing a signal with what a worker would have sent."""

from __future__ import annotations

import logging

import pytest
from celery import Celery, signals
from celery.app.task import Context
from celery.utils.dispatch import Signal
from celery.worker.request import Request

from pytest_celery_health import HandlerError
from pytest_celery_health.record import payloads
from pytest_celery_health.record.in_process import CelerySignals
from pytest_celery_health.signal_table import SIGNALS

got: list[dict] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    got.clear()


def take(**named):
    got.append(named)


@pytest.fixture
def charge(app: Celery):
    @app.task(name="shop.charge", bind=True)
    def charge(self, card):
        raise AssertionError("ran")

    return charge


def test_a_payload_is_whole_and_belongs_together(charge, celery_signals: CelerySignals) -> None:
    signals.task_failure.connect(take, sender=charge)
    error = ValueError("declined")
    recording = celery_signals.fire("task_failure", sender=charge, exception=error, args=["o1"])
    (sent,) = got
    assert sent["sender"].name == "shop.charge"
    assert (sent["exception"], sent["args"], sent["kwargs"]) == (error, ["o1"], {})
    assert sent["einfo"].exception.exc is error
    assert sent["traceback"] is error.__traceback__
    assert recording.expect_signal("task_failure", count=1).task_id == sent["task_id"]
    recording.expect_handler("test_fire:take", count=1)


def test_what_celery_sometimes_leaves_out(charge, celery_signals: CelerySignals) -> None:
    signals.task_retry.connect(take, sender=charge)
    celery_signals.fire("task_retry", sender=charge, without=("reason",))
    assert set(got[0]) == {"signal", "sender", "request", "einfo"}
    with pytest.raises(TypeError, match="never sends task_retry without 'request'"):
        celery_signals.fire("task_retry", sender=charge, without=("request",))


def test_a_task_is_current_where_a_worker_runs_one(charge, celery_signals: CelerySignals) -> None:
    def note(sender, **_):
        got.append({"id": sender.request.id, "retries": sender.request.retries})

    signals.task_retry.connect(note, weak=False)
    celery_signals.fire("task_retry", sender=charge, request={"retries": 2, "id": "id-1"})
    assert got == [{"id": "id-1", "retries": 2}]


def test_requests_are_of_the_kind_that_celery_sends(charge, celery_signals: CelerySignals) -> None:
    for name, kind in {"task_received": Request, "task_revoked": Request, "task_retry": Context}.items():
        getattr(signals, name).connect(take)
        celery_signals.fire(name, sender=charge)
        request = got.pop()["request"]
        assert isinstance(request, kind)
        assert request.task if kind is Context else request.name == "shop.charge"


@pytest.mark.parametrize("name", SIGNALS)
def test_every_signal_can_be_fired(name: str, app: Celery, celery_signals: CelerySignals) -> None:
    getattr(signals, name).connect(take)
    app.set_current()
    # Another test may have imported a third party whose handlers want more than a made-up sender.
    celery_signals.fire(name, handler_errors="record")
    sent = got[-1]
    assert set(sent) == {"signal", "sender", *payloads.arguments_of(name)}
    missing = {argument for argument, value in sent.items() if value is None}
    assert missing <= {
        "sender",
        "logfile",
        "exc",
        "result",
        "retval",
        "signum",
        "eta",
        "taskset",
        "declare",
        "options",
    }


def test_a_wrong_name_is_refused_with_the_nearest(celery_signals: CelerySignals) -> None:
    with pytest.raises(LookupError, match=r"never sends 'task_failed'; did you mean 'task_failure'\?"):
        celery_signals.fire("task_failed")
    with pytest.raises(TypeError) as refused:
        celery_signals.fire("task_failure", exeption=ValueError())
    assert str(refused.value) == (
        "Celery never sends 'exeption' with task_failure; did you mean 'exception'?;"
        " it sends task_id, exception, args, kwargs, traceback, einfo"
    )
    with pytest.raises(TypeError, match="exception is 'declined'; Celery sends an exception"):
        celery_signals.fire("task_failure", exception="declined")


def test_nobody_listens(charge, app: Celery, celery_signals: CelerySignals) -> None:
    app.set_current()
    signals.task_unknown.receivers.clear()
    signals.task_retry.connect(take)
    with pytest.raises(
        AssertionError, match=r"nobody listens to task_unknown; there are handlers of .*task_retry"
    ):
        celery_signals.fire("task_unknown")


def test_a_handler_for_another_sender_is_not_called(
    charge, app: Celery, celery_signals: CelerySignals
) -> None:
    signals.task_failure.receivers.clear()
    signals.task_failure.connect(take, sender="shop.charge")
    with pytest.raises(AssertionError) as unheard:
        celery_signals.fire("task_failure", sender=charge)
    assert str(unheard.value) == (
        f"nobody listens to task_failure from shop.charge; {__name__}:take does, but to another sender"
    )


def test_a_weak_handler_that_is_gone(app: Celery, celery_signals: CelerySignals) -> None:
    app.set_current()
    signals.task_failure.receivers.clear()
    signals.task_failure.connect(lambda **_: None)
    with pytest.raises(AssertionError) as unheard:
        celery_signals.fire("task_failure")
    assert str(unheard.value) == (
        "nobody listens to task_failure any more: 1 weakly connected handler is gone; connect with weak=False"
    )


def test_a_handler_that_raises(app: Celery, celery_signals: CelerySignals) -> None:
    app.set_current()

    @signals.task_failure.connect(weak=False)
    def log(args, kwargs, **_):
        logging.getLogger("shop").error("failed", extra={"args": args})

    with pytest.raises(HandlerError, match="raised KeyError: \"Attempt to overwrite 'args' in LogRecord\""):
        celery_signals.fire("task_failure")
    assert len(celery_signals.fire("task_failure", handler_errors="record").errors) == 1


def test_signals_are_put_back(app: Celery, celery_signals: CelerySignals) -> None:
    app.set_current()
    before = Signal._live_receivers
    signals.task_failure.connect(take)
    receivers = list(signals.task_failure.receivers)
    celery_signals.fire("task_failure")
    assert Signal._live_receivers is before
    assert signals.task_failure.receivers == receivers
