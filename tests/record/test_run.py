"""Running a task in process: its end, its retries, its handlers, and that nothing is left changed."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import nullcontext
from datetime import datetime

import pytest
from celery import Celery, Task, _state, chain, signals
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject
from celery.utils.dispatch import Signal
from kombu.exceptions import EncodeError

from pytest_celery_health import HandlerError
from pytest_celery_health.record.in_process import CelerySignals


class CardDeclined(Exception):
    """The bank said no."""


def sent(recording) -> list[str]:
    return [call.signal.removeprefix("task_") for call in recording.signals]


def test_a_task_that_returns(app: Celery, celery_signals: CelerySignals) -> None:
    @app.task
    def add(a, b):
        return a + b

    recording = celery_signals.run(add.s(1, 2))
    assert (recording.state, recording.result, recording.runs) == ("SUCCESS", 3, 1)
    assert sent(recording) == ["prerun", "success", "postrun"]
    assert recording.signals[0].arguments["args"] == [1, 2]
    assert recording.signals[2].arguments["state"] == "SUCCESS"
    recording.expect_log(logger="celery.app.trace", containing="succeeded")


def test_a_task_that_raises(app: Celery, celery_signals: CelerySignals) -> None:
    @app.task
    def charge():
        raise CardDeclined("declined")

    recording = celery_signals.run(charge.s(), raises=CardDeclined)
    assert sent(recording) == ["prerun", "failure", "postrun"]
    assert recording.signals[1].arguments["exception"] == "CardDeclined: declined"
    assert str(recording.exception) == "declined"


def test_what_the_task_raised_must_be_told(app: Celery, celery_signals: CelerySignals) -> None:
    @app.task(name="shop.charge")
    def charge(card):
        if card == "declined":
            raise CardDeclined("order o1: declined")
        return 42

    with pytest.raises(AssertionError) as unexpected:
        celery_signals.run(charge.s("declined"))
    assert str(unexpected.value) == (
        "shop.charge raised CardDeclined: order o1: declined;"
        " wanted a return (raises=CardDeclined expects it)"
    )
    assert isinstance(unexpected.value.__cause__, CardDeclined)
    with pytest.raises(
        AssertionError, match=r"shop.charge ended as SUCCESS; wanted it to raise CardDeclined"
    ):
        celery_signals.run(charge.s("good"), raises=CardDeclined)
    with pytest.raises(
        AssertionError, match="raised CardDeclined: order o1: declined; wanted KeyError or OSError"
    ):
        celery_signals.run(charge.s("declined"), raises=(KeyError, OSError))


def test_retries_run_at_once_and_are_published_as_a_worker_would(
    app: Celery, celery_signals: CelerySignals
) -> None:
    @app.task(bind=True, max_retries=2, default_retry_delay=600)
    def fetch(self, url):
        raise self.retry(exc=CardDeclined(f"{url}, try {self.request.retries}"))

    recording = celery_signals.run(fetch.s("u"), raises=CardDeclined)
    assert recording.runs == 3
    retry = ["prerun", "before_task_publish", "after_task_publish", "retry", "postrun"]
    assert sent(recording) == [*retry, *retry, "prerun", "failure", "postrun"]
    assert str(recording.exception) == "u, try 2"
    published = [call for call in recording.signals if call.signal == "before_task_publish"]
    assert [call.arguments["headers"]["retries"] for call in published] == [1, 2]
    assert len({call.task_id for call in recording.signals}) == 1


def test_an_eager_app_retries_too_and_runs_what_it_sends(app: Celery, celery_signals: CelerySignals) -> None:
    app.conf.task_always_eager = True
    done = []

    @app.task
    def pack(order):
        done.append(order)

    @app.task(bind=True, max_retries=1)
    def order(self):
        pack.delay("o1")
        raise self.retry()

    recording = celery_signals.run(order.s(), raises=MaxRetriesExceededError)
    assert recording.runs == 2
    assert done == ["o1", "o1"]


def test_what_the_task_sends_goes_nowhere(app: Celery, celery_signals: CelerySignals) -> None:
    @app.task(name="shop.pack")
    def pack(order):
        raise AssertionError("ran")

    @app.task
    def order():
        return pack.delay("o1").id

    recording = celery_signals.run(order.s())
    assert recording.expect_signal("before_task_publish", count=1).sender == "shop.pack"
    assert recording.requests == ()


@pytest.mark.parametrize(("end", "state"), [(Ignore, "IGNORED"), (Reject, "REJECTED")])
def test_a_deliberate_end_is_no_failure(
    app: Celery, celery_signals: CelerySignals, end: type[Exception], state: str
) -> None:
    @app.task
    def leave():
        raise end("enough")

    recording = celery_signals.run(leave.s())
    assert recording.state == state
    assert sent(recording) == ["prerun", "postrun"]
    assert celery_signals.run(leave.s(), raises=end).state == state


@pytest.mark.parametrize("end", [SystemExit, MemoryError])
def test_an_end_that_celery_does_not_catch(
    app: Celery, celery_signals: CelerySignals, end: type[BaseException]
) -> None:
    @app.task
    def leave():
        raise end

    assert "postrun" in sent(celery_signals.run(leave.s(), raises=end))


def test_arguments_arrive_as_a_worker_gets_them(app: Celery, celery_signals: CelerySignals) -> None:
    @app.task
    def kind(value):
        return type(value).__name__

    assert celery_signals.run(kind.s((1, 2))).result == "list"
    with pytest.raises(EncodeError):
        celery_signals.run(kind.s(object()))


def test_a_result_that_cannot_be_stored_is_a_failure(app: Celery, celery_signals: CelerySignals) -> None:
    """Eager mode says SUCCESS; a worker does not."""

    @app.task
    def lock():
        return threading.Lock()

    assert sent(celery_signals.run(lock.s(), raises=EncodeError)) == ["prerun", "failure", "postrun"]
    assert celery_signals.run(lock.s().set(ignore_result=True)).state == "SUCCESS"


def test_the_tasks_own_classes_hooks_and_context(app: Celery, celery_signals: CelerySignals) -> None:
    seen = []

    class Base(Task):
        def on_failure(self, exc, task_id, args, kwargs, einfo):
            seen.append((str(exc), task_id))

    @app.task(base=Base, bind=True)
    def charge(self, card):
        assert self.app.current_task.request.id == self.request.id
        assert not self.request.called_directly
        assert self.request.delivery_info["routing_key"] == "priority"
        assert self.request.headers_of_mine == "x"
        raise CardDeclined(card)

    signature = charge.s("declined").set(task_id="id-1", queue="priority", headers={"headers_of_mine": "x"})
    recording = celery_signals.run(signature, raises=CardDeclined)
    assert seen == [("declined", "id-1")]
    assert recording.signals[0].task_id == "id-1"


def test_what_is_no_single_task_is_refused(app: Celery, celery_signals: CelerySignals) -> None:
    @app.task
    def add(a, b):
        return a + b

    with pytest.raises(TypeError, match=r"write run\(task\.s\(\.\.\.\)\)"):
        celery_signals.run(add)
    with pytest.raises(TypeError, match="takes one task, not a chain"):
        celery_signals.run(chain(add.s(1, 2), add.s(3)))


def test_a_task_that_waits_for_a_result_is_told_as_by_a_worker(
    app: Celery, celery_signals: CelerySignals
) -> None:
    @app.task
    def add(a, b):
        return a + b

    @app.task
    def wait():
        return add.delay(1, 2).get()

    celery_signals.run(wait.s(), raises=RuntimeError)


def test_a_handler_that_raises_fails_the_test(app: Celery, celery_signals: CelerySignals) -> None:
    @signals.task_failure.connect(weak=False)
    def alert(**_):
        raise ValueError("no such channel")

    @app.task
    def charge():
        raise CardDeclined("declined")

    with pytest.raises(HandlerError) as failed:
        celery_signals.run(charge.s(), raises=CardDeclined)
    line = str(failed.value)
    assert line.startswith(
        f"{__name__}:test_a_handler_that_raises_fails_the_test.<locals>.alert raised ValueError:"
    )
    assert "no such channel on task_failure (tests/record/test_run.py:" in line
    assert line.endswith("; Celery would swallow it")
    assert isinstance(failed.value.__cause__, ValueError)
    assert failed.value.recording.expect_handler("alert", signal="task_failure").duration < 1

    recording = celery_signals.run(charge.s(), raises=CardDeclined, handler_errors="record")
    (error,) = recording.errors
    assert error.error == "ValueError: no such channel"
    assert "raise ValueError" in error.traceback


def test_a_handler_whose_body_never_runs_is_named(app: Celery, celery_signals: CelerySignals) -> None:
    @signals.task_postrun.connect(weak=False)
    async def report(**_):
        raise AssertionError("ran")

    @signals.task_postrun.connect(weak=False)
    def stream(**_):
        yield 1

    @app.task
    def add():
        pass

    with pytest.raises(HandlerError) as failed:
        celery_signals.run(add.s())
    first, second = str(failed.value).splitlines()
    assert ".report never ran: it is async def, and nobody awaits it on task_postrun (" in first
    assert ".stream never ran: it is a generator" in second


def test_a_handler_that_waits_until_all_is_well_does_not_hold_the_test(
    app: Celery, celery_signals: CelerySignals
) -> None:
    """Celery would call it again and again, for ever."""

    @signals.task_prerun.connect(retry=True)
    def warm(**_):
        raise OSError("not yet")

    @app.task
    def add():
        pass

    with pytest.raises(HandlerError, match=r"<locals>\.warm raised OSError: not yet"):
        celery_signals.run(add.s())


def test_a_weak_handler_that_is_gone_is_not_called(app: Celery, celery_signals: CelerySignals) -> None:
    def connect() -> None:
        @signals.task_success.connect
        def praise(**_):
            raise AssertionError("ran")

    @app.task
    def add():
        pass

    connect()
    recording = celery_signals.run(add.s())
    assert recording.handlers == ()
    assert recording.lost["task_success"] == 1


def test_what_handlers_return_and_who_else_is_called(app: Celery, celery_signals: CelerySignals) -> None:
    class Audit:
        def __call__(self, **_):
            return {"kept": (1, 2)}

        def note(self, **_):
            return self

    audit = Audit()
    signals.task_success.connect(audit, weak=False)
    signals.task_success.connect(audit.note, weak=False)

    @app.task
    def add():
        pass

    call, note = celery_signals.run(add.s()).handlers
    assert call.handler == f"{__name__}:test_what_handlers_return_and_who_else_is_called.<locals>.Audit"
    assert call.result == {"kept": [1, 2]}
    assert note.handler.endswith(".Audit.note")


def test_the_workers_modules_are_imported(
    celery_signals: CelerySignals, tmp_path, monkeypatch: pytest.MonkeyPatch, app: Celery
) -> None:
    (tmp_path / "handlers_of_mine.py").write_text(
        "from celery import signals\n@signals.task_success.connect\ndef praise(**_): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    app.conf.imports = ["handlers_of_mine"]

    @app.task
    def add():
        pass

    celery_signals.run(add.s()).expect_handler("handlers_of_mine:praise", signal="task_success", count=1)


def test_a_recording_within_a_recording(app: Celery, celery_signals: CelerySignals) -> None:
    inner = []

    @app.task(name="inner")
    def small():
        logging.getLogger("shop").warning("inside")

    @app.task(name="outer")
    def large():
        inner.append(celery_signals.run(small.s()))
        logging.getLogger("shop").warning("outside")

    outer = celery_signals.run(large.s())
    inner[0].expect_log(logger="shop", containing="inside", task="inner", count=1)
    assert [record.message for record in inner[0].logs if record.logger == "shop"] == ["inside"]
    outer.expect_log(logger="shop", containing="inside", task="inner")
    outer.expect_log(logger="shop", containing="outside", task="outer")
    assert sent(outer) == ["prerun", "prerun", "success", "postrun", "success", "postrun"]


def test_runs_in_threads(app: Celery, celery_signals: CelerySignals) -> None:
    """Each recording has its own task; it may hold what others did meanwhile."""

    @app.task
    def add(a, b):
        return a + b

    app.finalize()
    before = state_of_process(app)
    results = {}

    def run(number: int) -> None:
        for _ in range(20):
            recording = celery_signals.run(add.s(number, 1))
            results.setdefault(number, set()).add(recording.result)
            assert recording.expect_signal("task_success")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {number: {number + 1} for number in range(4)}
    assert state_of_process(app) == before


def test_a_thread_that_a_handler_starts_is_waited_for(app: Celery, celery_signals: CelerySignals) -> None:
    go = threading.Event()

    @app.task
    def charge():
        def later() -> None:
            go.wait(5)
            logging.getLogger("shop").warning("later")

        threading.Thread(target=later).start()

    recording = celery_signals.run(charge.s(), then=go.set)
    recording.expect_log(logger="shop", containing="later")


def state_of_process(app: Celery) -> list[object]:
    return [
        *(list(signal.receivers) for signal in vars(signals).values() if isinstance(signal, Signal)),
        dict(vars(Signal)),
        dict(vars(logging.Logger)),
        dict(vars(socket.socket)),
        socket.getaddrinfo,
        logging.getLogger().level,
        logging.getLogger().handlers[:],
        app.amqp._producer_pool,
        app._backend_cache,
        dict(vars(app._local)),
        _state._tls.current_app,
        _state.task_join_will_block(),
        _state._task_stack.top,
        app.conf.broker_url,
    ]


@pytest.mark.parametrize("raises", [None, SystemExit, AssertionError, KeyboardInterrupt], ids=str)
def test_everything_is_put_back(app: Celery, raises: type[BaseException] | None) -> None:
    @app.task
    def leave():
        if raises is not None:
            raise raises("x")

    app.finalize()
    app.amqp.producer_pool  # noqa: B018 - made by then in most processes
    before = state_of_process(app)
    with CelerySignals() as celery_signals:
        expected = nullcontext() if raises is None else pytest.raises((AssertionError, KeyboardInterrupt))
        with expected:
            celery_signals.run(leave.s())
    assert state_of_process(app) == before


def test_time_stands_still_and_the_recording_goes_on(app: Celery, celery_signals: CelerySignals) -> None:
    freezegun = pytest.importorskip("freezegun")

    @app.task
    def now():
        return datetime.now().isoformat()

    with freezegun.freeze_time("2026-01-15T12:00:00"):
        recording = celery_signals.run(now.s())
    assert recording.signals[-1].at > recording.signals[0].at
