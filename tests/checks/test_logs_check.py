from __future__ import annotations

import json

import pytest

from pytest_celery_health import (
    AskLogs,
    Delivery,
    LogHandler,
    LogLine,
    Logs,
    LogsArrive,
    Snapshot,
    Unseen,
    Verdict,
    judge,
)
from pytest_celery_health.checks.logs import KINDS, LEVELS

TASK = {"task": "shop.pay", "task_id": "id-1"}
TAKEN = Delivery("console", "stderr", "ERROR", "ERROR shop: failed")
REFUSED = Delivery("console", "stderr", "ERROR", refused="its filter refuses it")
FAILED = Delivery("console", "stderr", "ERROR", error="KeyError: 'task_name'")
CONSOLE = LogHandler("console", "stderr", loggers=("root",), pids=(1, 2))


def line(*deliveries: Delivery, logger: str = "shop", level: str = "ERROR", **more: object) -> LogLine:
    return LogLine(logger, level, deliveries=deliveries, **{**TASK, **more})  # type: ignore[arg-type]


def verdict(*lines: LogLine, handlers=(CONSOLE,), gone=(), **fields) -> Verdict:
    seen = Logs(lines or (line(TAKEN),), tuple(handlers), tuple(gone), fields.get("pool", ""))
    return judge(LogsArrive(**fields), Snapshot(seen))


def text_of(*words: str, **fields: object) -> Delivery:
    return Delivery("console", "stderr", "ERROR", json.dumps(fields) if fields else " ".join(words))


def test_records_that_arrive():
    found = verdict(line(TAKEN), line(TAKEN, logger="celery.app.trace", own=False, alike=3))
    assert (found.healthy, found.message()) == (True, "2 loggers reach their handlers")
    assert found.findings[-1].figures == {
        "shop.reaches": "console (stderr)",
        "celery.app.trace.reaches": "console (stderr)",
    }


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (
            line(lost="the logger is disabled"),
            "shop reaches no handler at ERROR in a task: the logger is disabled;",
        ),
        (
            line(REFUSED),
            "shop reaches no handler at ERROR in a task: console (stderr): its filter refuses it;",
        ),
        (
            line(lost="no handler", own=False, logger="celery.app.trace", alike=2, task_id=""),
            "celery.app.trace reaches no handler at ERROR outside of tasks: no handler;"
            " wanted one that takes WARNING and above (nor do 2 other loggers of Celery)",
        ),
        (line(lost="no handler", logger="print", own=False), "print reaches no handler: no handler; wanted"),
    ],
)
def test_a_record_that_nobody_takes(lost, message):
    found = verdict(lost)
    assert found.unhealthy
    assert found.message().startswith(message)
    assert verdict(lost, allow=(lost.logger,)).healthy
    assert verdict(lost, allow=(f"lost:{lost.logger}",)).healthy
    assert verdict(lost, allow=(f"fields:{lost.logger}",)).unhealthy


@pytest.mark.parametrize(
    "let_be",
    [
        line(lost="the level of root is INFO", level="DEBUG"),
        line(lost="no handler", own=False, logger="urllib3"),
        line(REFUSED, TAKEN),
    ],
)
def test_what_nobody_has_to_take(let_be):
    assert verdict(let_be).healthy


def test_the_least_level_that_must_arrive():
    lost = line(lost="no handler", level="INFO")
    assert verdict(lost).healthy
    assert verdict(lost, level="INFO").unhealthy


def test_every_level_of_a_logger_is_told_of_once():
    lost = [line(lost="no handler", level=level, task_id=task) for level in LEVELS for task in ("", "id-1")]
    found = verdict(*lost)
    (told,) = found.bad
    assert told.line() == "shop reaches no handler: no handler; wanted one that takes WARNING and above"


def test_a_logger_of_celery_that_goes_the_way_of_another_is_told_of_once():
    lost = {"lost": "celery does not propagate", "own": False}
    found = verdict(
        line(logger="celery", **lost), line(logger="celery.worker.strategy", source="raises", **lost)
    )
    assert len(found.bad) == 1


def test_a_record_that_cannot_be_written():
    found = verdict(line(FAILED, task_id=""))
    (told,) = found.bad
    assert told.line() == (
        "handler console fails with KeyError: 'task_name' for records of shop outside of tasks"
        " (StreamHandler, stderr); wanted a line for every record"
        " (celery.app.log.TaskFormatter has it for every record, in a task and out of one)"
    )
    silent = Delivery("console", "stderr", "ERROR", error="TypeError: no", told=False)
    assert ", and nothing tells of it (StreamHandler, stderr); wanted" in verdict(line(silent)).message()
    assert verdict(line(FAILED), allow=("format:console",)).healthy


def test_handlers_that_are_gone():
    lost = LogHandler(
        "tasks", "tasks.log", "RotatingFileHandler", loggers=("celery",), rotates=True, error="KeyError: 'x'"
    )
    found = verdict(gone=[lost])
    assert [each.line() for each in found.bad] == [
        "handler tasks is taken away when a worker sets up logging, from celery, and gets no record"
        " (RotatingFileHandler, tasks.log); wanted its records"
        " (connect a handler to setup_logging, or set worker_hijack_root_logger = False)",
        "handler tasks fails with KeyError: 'x' for a record from outside of tasks, too"
        " (RotatingFileHandler, tasks.log); wanted a line for every record",
        "handler tasks would be rotated by every process of the pool (RotatingFileHandler, tasks.log);"
        " wanted one process that rotates it"
        " (who renames a file under others loses lines; use WatchedFileHandler and logrotate, or stderr)",
    ]
    assert verdict(gone=[lost], allow=("tasks",)).healthy
    plain = LogHandler("StreamHandler", "stderr", loggers=("root",), stock=True)
    found = verdict(gone=[plain])
    assert (found.healthy, len(found.warnings)) == (True, 1)


@pytest.mark.parametrize(
    ("pids", "rotates", "healthy"), [((1, 2), True, False), ((1,), True, True), ((1, 2), False, True)]
)
def test_a_file_that_several_processes_rotate(pids, rotates, healthy):
    handler = LogHandler("tasks", "tasks.log", "RotatingFileHandler", pids=pids, rotates=rotates)
    found = verdict(handlers=[handler])
    assert found.healthy is healthy
    if not healthy:
        assert found.message().startswith(
            "handler tasks is rotated by each of 2 processes that write to it (RotatingFileHandler,"
            " tasks.log);"
        )


def test_a_queue_that_nobody_empties():
    found = verdict(handlers=[LogHandler("QueueHandler", kind="QueueHandler", stuck="nobody takes records")])
    assert found.message().startswith(
        "QueueHandler keeps records: nobody takes records; wanted a listener in each"
    )


@pytest.mark.parametrize(("file", "healthy"), [(True, False), (False, True)])
def test_colours(file, healthy):
    handler = LogHandler("tasks", "tasks.log", "FileHandler", formatter="TaskFormatter", file=file)
    found = verdict(
        line(Delivery("tasks", "tasks.log", "ERROR", "\x1b[1;31mfailed\x1b[0m")), handlers=[handler]
    )
    assert found.healthy is healthy
    if not healthy:
        assert found.message() == (
            "handler tasks writes the escape codes of colours to a file (FileHandler, tasks.log);"
            " wanted plain text"
            " (give TaskFormatter use_color=False)"
        )


def test_a_level_that_changes():
    arrives = [
        line(Delivery("console", "stderr", "WARNING", "x"), logger="structlog of shop", level=level)
        for level in ("INFO", "WARNING", "ERROR")
    ]
    found = verdict(*arrives)
    assert found.message() == (
        "structlog of shop arrives as WARNING when it is INFO or ERROR;"
        " wanted the level that it was written at"
        " (it prints; give it logger_factory=structlog.stdlib.LoggerFactory())"
    )


def test_what_the_task_before_has_left():
    found = verdict(line(TAKEN, leaked="the id id-0"), line(TAKEN, leaked="the id id-0"))
    (told,) = found.bad
    assert told.line().startswith("shop keeps what a task had bound for the next task of its process;")
    assert verdict(line(TAKEN, leaked="the id id-0"), allow=("leak:shop",)).healthy


@pytest.mark.parametrize(
    "delivery",
    [
        text_of("shop.pay[id-1] failed, tenant=acme"),
        text_of("\x1b[36mtask_id\x1b[0m=\x1b[35mid-1\x1b[0m shop.pay \x1b[36mtenant\x1b[0m=\x1b[35macme"),
        text_of(task_id="id-1", task_name="shop.pay", tenant="acme"),
        text_of(context={"task_id": "id-1", "task_name": "shop.pay", "more": {"tenant": 7}}),
        text_of(
            "<14>Jan 1 00:00 shop", json.dumps({"task_id": "id-1", "task_name": "shop.pay", "tenant": "a"})
        ),
        Delivery("sdk", brings={"task_id": "id-1", "task_name": "shop.pay", "tenant": "acme"}),
    ],
)
def test_fields_that_a_record_holds(delivery):
    assert verdict(line(delivery), fields=("task_id", "task_name", "tenant")).healthy
    assert verdict(line(TAKEN, delivery), fields=("task_id", "task_name", "tenant")).healthy


@pytest.mark.parametrize(
    ("delivery", "lacks"),
    [
        (text_of("failed"), "task_id, task_name or tenant"),
        (text_of("???[???] tenant=None failed"), "task_id, task_name or tenant"),
        (text_of(task_id="id-0", task_name="shop.pay", tenant=None), "task_id or tenant"),
        (text_of(message="shop.pay[id-1] tenant=acme"), "task_id, task_name or tenant"),
        (Delivery("console", "stderr", brings={"task_id": "id-1"}), "task_name or tenant"),
    ],
)
def test_fields_that_a_record_lacks(delivery, lacks):
    fields = ("task_id", "task_name", "tenant")
    found = verdict(line(delivery), fields=fields)
    assert found.unhealthy
    assert found.message().startswith(
        f"shop has no {lacks} in console (stderr); wanted task_id, task_name and tenant in every"
    )
    assert verdict(line(delivery), fields=fields, allow=("fields:shop",)).healthy


@pytest.mark.parametrize(
    "other",
    [
        line(TAKEN, task_id=""),
        line(TAKEN, own=False),
        line(TAKEN, source="raises"),
        line(REFUSED, level="INFO"),
    ],
)
def test_records_that_need_no_fields(other):
    assert verdict(other, fields=("task_id",)).healthy


@pytest.mark.parametrize("name", ["tasks", "RotatingFileHandler", "/var/log/tasks.log", "tasks.log"])
def test_what_a_handler_is_called(name):
    handler = LogHandler("tasks", "/var/log/tasks.log", "RotatingFileHandler")
    delivery = Delivery("tasks", "/var/log/tasks.log", "ERROR", "failed")
    assert verdict(line(delivery), handlers=[handler], must_reach={name: ("shop",)}).healthy
    assert verdict(line(delivery), handlers=[handler], must_reach={name[:-1]: ("shop",)}).unhealthy


def test_a_handler_that_is_not_reached():
    found = verdict(
        line(TAKEN, logger="shop.orders"),
        line(TAKEN, logger="structlog of shop.mail"),
        line(TAKEN, logger="shopping"),
        must_reach={"sentry": ("shop",), "console": ("nothing",)},
    )
    assert [each.line() for each in found.bad] == [
        "shop.orders, structlog of shop.mail never reach sentry in a task, only console (stderr);"
        " wanted WARNING and above there"
    ]
    assert [each.line() for each in found.blind] == [
        "cannot tell: the worker has no logger nothing, nor one below it"
    ]


def test_the_table_has_a_row_for_each_logger_and_a_column_for_each_handler():
    tasks = Delivery("tasks", "tasks.log", "ERROR", "x")
    found = verdict(
        line(TAKEN, tasks, level="INFO"),
        line(TAKEN, level="DEBUG", task_id=""),
        line(TAKEN, REFUSED, logger="celery.app.trace", alike=3),
        line(TAKEN, logger="celery.app.trace", alike=3, task_id=""),
        line(FAILED, logger="x"),
        line(TAKEN, source="raises", logger="y"),
    )
    assert found.table == (
        ("logger", "written in", "console (stderr)", "tasks (tasks.log)"),
        ("shop", "task", "INFO", "INFO"),
        ("shop", "no task", "DEBUG", "-"),
        ("celery.app.trace and 3 more", "both", "ERROR", "-"),
        ("x", "task", "fails", "-"),
    )


def test_logging_that_was_not_seen():
    found = judge(LogsArrive(), Snapshot(unseen={Logs: Unseen("shop failed to load")}))
    assert (found.unknown, found.message()) == (True, "cannot tell: logs: shop failed to load")
    assert judge(LogsArrive(), Snapshot(Logs())).message() == "cannot tell: logs: no record was written"
    assert judge(LogsArrive(pool="solo"), Snapshot(Logs((line(TAKEN),)))).unknown


def test_it_asks_for_the_loggers_that_it_names():
    (ask,) = LogsArrive(must_reach={"a": ("shop", "celery"), "b": ("shop",)}, pool="solo").asks()
    assert ask == AskLogs(("shop", "celery"), "solo")
    assert ask.joined(AskLogs(("mail",), "solo")) == AskLogs(("shop", "celery", "mail"), "solo")
    assert ask.joined(AskLogs()) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"level": "LOUD"}, 'level is "LOUD"; there are DEBUG, INFO'),
        ({"must_reach": {"console": ()}}, 'must_reach has no logger for "console"; write'),
        ({"allow": ("rotations:tasks",)}, 'allow has "rotations:tasks"; .* did you mean rotation?'),
        ({"allow": ("x:tasks",)}, "there are lost, hijacked"),
        ({"pool": "gevent"}, 'pool is "gevent"; drills know prefork'),
    ],
)
def test_what_no_contract_can_mean(fields, message):
    with pytest.raises(ValueError, match=message):
        LogsArrive(**fields)


def test_every_kind_of_mistake_is_documented():
    from tests.test_docs import REFERENCE

    section = REFERENCE.partition("### `logs`")[2]
    assert [kind for kind in KINDS if f"\n| {kind} | " not in section] == []
