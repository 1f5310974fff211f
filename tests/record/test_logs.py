"""Log records, whoever handles them: the standard library's, structlog's, lines of JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from celery import Celery, signals

from pytest_celery_health import Delivery
from pytest_celery_health.record import logs
from pytest_celery_health.record.in_process import CelerySignals
from pytest_celery_health.record.recorder import JsonLines, Recorder, read


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    structlog.reset_defaults()
    with Recorder() as recorder:
        yield recorder
    structlog.reset_defaults()


def test_a_record_of_a_logger_that_does_not_propagate(recorder: Recorder) -> None:
    logger = logging.getLogger("shop.silent")
    logger.propagate, logger.handlers = False, [logging.NullHandler()]
    try:
        logger.error("order %s: %s", "o1", "declined", extra={"order_id": "o1", "items": ("a", "b")})
    finally:
        logger.propagate, logger.handlers = True, []
    (record,) = recorder.recording.logs
    assert (record.level, record.logger, record.message) == ("ERROR", "shop.silent", "order o1: declined")
    assert record.fields == {"order_id": "o1", "items": ["a", "b"]}
    assert record.where.rpartition(":")[0] == __file__


def test_the_task_in_which_a_record_was_written(app: Celery, celery_signals: CelerySignals) -> None:
    @app.task(name="shop.pack")
    def pack():
        logging.getLogger("shop").info("packed")

    recording = celery_signals.run(pack.s().set(task_id="id-1"))
    recording.expect_log(level="info", logger="shop", containing="packed", task="shop.pack", task_id="id-1")


def test_the_level_that_a_worker_would_have(app: Celery, celery_signals: CelerySignals) -> None:
    @app.task
    def pack():
        logging.getLogger("shop").debug("fine")
        logging.getLogger("shop").info("coarse")

    messages = [record.message for record in celery_signals.run(pack.s()).logs if record.logger == "shop"]
    assert messages == ["coarse"]
    celery_signals.run(pack.s(), loglevel="debug").expect_log(logger="shop", containing="fine")
    assert logging.getLogger().level == logging.WARNING


def test_the_exception_of_a_record(recorder: Recorder) -> None:
    try:
        raise ValueError("declined")
    except ValueError:
        logging.getLogger("shop").exception("failed")
    recorder.recording.expect_log(containing="ValueError: declined")


def test_a_record_that_cannot_be_formatted(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger = logging.getLogger("shop")
    monkeypatch.setattr(logger, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(logger, "propagate", False)
    logger.error("%s and %s", "one")
    (record,) = recorder.recording.logs
    assert (
        record.message == "'%s and %s' cannot be formatted: TypeError: not enough arguments for format string"
    )


def test_a_value_whose_repr_raises(recorder: Recorder) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    logging.getLogger("shop").error("x", extra={"order": Broken()})
    (record,) = recorder.recording.logs
    assert record.fields["order"].endswith("Broken, whose repr raises RuntimeError>")


def test_a_line_of_json_is_its_fields(recorder: Recorder) -> None:
    logging.getLogger("shop").warning(json.dumps({"event": "order_packed", "order_id": "o1", "n": 3}))
    recorder.recording.expect_log(containing="order_packed", order_id="o1", n=3)


def test_an_event_of_structlog_that_is_printed(
    recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.get_logger().bind(order_id="o1").error("order_failed", why="declined")
    (record,) = recorder.recording.logs
    assert (record.level, record.logger, record.message) == ("ERROR", "structlog", "order_failed")
    assert record.fields["order_id"] == "o1"
    assert record.fields["why"] == "declined"
    assert "order_failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "last",
    [
        structlog.processors.JSONRenderer(),
        structlog.processors.KeyValueRenderer(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        structlog.stdlib.render_to_log_kwargs,
    ],
    ids=lambda last: getattr(last, "__name__", type(last).__name__),
)
def test_an_event_of_structlog_through_logging_is_one_record(last: object) -> None:
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, last],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    log = structlog.get_logger("shop.orders")
    log.error("before")
    try:
        with Recorder() as recorder, structlog.contextvars.bound_contextvars(order_id="o1"):
            log.error("order_failed", why="declined")
            logging.getLogger("shop.orders").error("plain")
        log.error("after")
    finally:
        structlog.reset_defaults()
    event, plain = recorder.recording.logs
    assert (event.level, event.logger, event.message) == ("ERROR", "shop.orders", "order_failed")
    assert event.fields["order_id"] == "o1"
    assert event.fields["why"] == "declined"
    assert (plain.message, plain.fields.get("order_id")) == ("plain", None)


def test_the_processors_of_structlog_are_put_back() -> None:
    structlog.reset_defaults()
    before = list(structlog.get_config()["processors"])
    with Recorder():
        assert structlog.get_config()["processors"] != before
    assert structlog.get_config()["processors"] == before


def test_what_is_missing_is_told_with_what_was_seen(app: Celery, celery_signals: CelerySignals) -> None:
    @signals.task_success.connect(weak=False)
    def log(sender, **_):
        logging.getLogger("shop").warning("task ended", extra={"order_id": "o1"})

    @app.task
    def pack():
        pass

    recording = celery_signals.run(pack.s(), loglevel=logging.WARNING)
    with pytest.raises(AssertionError) as missing:
        recording.expect_log(level="ERROR", logger="shop", containing="ended", order_id="o2")
    assert str(missing.value) == (
        "saw 1 log record; wanted an ERROR log record of shop containing 'ended' with order_id='o2'\n"
        "  WARNING shop: task ended"
    )


def test_who_took_a_record_is_known_where_handlers_are_watched(tmp_path: Path) -> None:
    path = tmp_path / "records"
    logger = logging.getLogger("shop.watched")
    logger.propagate = False
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logging.Formatter("%(task_name)s %(message)s", defaults={"task_name": "none"}))
    handler.name = "console"
    logger.addHandler(handler)
    try:
        with logs.handlers_watched(), Recorder(JsonLines(path)):
            logger.error("one")
            handler.setLevel(logging.CRITICAL)
            logger.error("two")
            logger.removeHandler(handler)
            logger.error("three")
            logger.addFilter(lambda record: False)
            logger.error("four")
        with Recorder() as unwatched:
            logging.getLogger("shop").error("five")
    finally:
        logger.filters.clear()
        logger.propagate = True
    one, two, three, four = read(path).logs
    assert one.deliveries == (Delivery("console", "StringIO", "ERROR", "none one"),)
    assert [record.nobody for record in (one, two, three, four)] == [
        "",
        "console (StringIO): it takes CRITICAL and above",
        "shop.watched does not propagate, and no handler is there",
        "a filter of the logger refuses it",
    ]
    (five,) = unwatched.recording.logs
    assert (five.deliveries, five.nobody) == (None, "")
    assert logging.Handler.handle.__module__ == "logging"
