"""The check `logs` on a real worker: each trap is red for its own reason, each right way is green."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_celery_health import (
    AlertsReach,
    AskDrills,
    Logs,
    LogsArrive,
    Output,
    Snapshot,
    Verdict,
    judge,
)
from pytest_celery_health.contract.read import read
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.run import Run
from pytest_celery_health.sandbox.drills.coverage import drilled
from pytest_celery_health.sandbox.drills.crew import Drills
from pytest_celery_health.sandbox.drills.log_lines import logged
from pytest_celery_health.sandbox.spec import SandboxSpec
from tests.drills.conftest import REPO

pytestmark = pytest.mark.slow

PROJECTS = REPO / "tests" / "projects"
RIGHT = ["default", "django", "json", "own_root", "queue", "structlog"]

TINY = """
import logging, logging.config, logging.handlers, os, sys
from celery import Celery, signals

app = Celery("tiny", broker="redis://production.example:6379/0")
logger = logging.getLogger("tiny.orders")

@app.task(name="tiny.pack")
def pack(order): ...

def configure(loggers=(), formatter=None, handler=None, root=("h",), **more):
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"f": formatter or {"format": "%(levelname)s %(name)s %(message)s"}},
        "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f", **(handler or {})}},
        "root": {"handlers": root, "level": "INFO"},
        "loggers": dict(loggers),
        **more,
    })

def by_receiver(**said):
    signals.setup_logging.connect(lambda **_: configure(**said), weak=False)

FILE = os.path.join(os.path.dirname(__file__), "tasks.log")
"""
ROTATING = (
    '{"class": "logging.handlers.RotatingFileHandler", "filename": FILE, "maxBytes": 10**6, "backupCount": 3}'
)

Says = Callable[..., Verdict]


@pytest.fixture
def says(tmp_path: Path) -> Says:
    """What the check makes of an app that is `TINY` and more code."""
    known: dict[object, Logs] = {}

    def of(code: str, **fields: object) -> Verdict:
        check = LogsArrive(**fields)  # type: ignore[arg-type]
        (ask,) = check.asks()
        if (code, ask) not in known:
            (tmp_path / "tiny.py").write_text(TINY + textwrap.dedent(code))
            drills = Drills(SandboxSpec(), AppSpec("tiny:app", tmp_path))
            try:
                known[code, ask] = logged(drills, ask)
            finally:
                drills.close()
        return judge(check, Snapshot(known[code, ask]))

    return of


def lines(verdict: Verdict) -> list[str]:
    return [finding.line() for finding in verdict.bad]


# What is right.


@pytest.mark.parametrize("name", RIGHT)
def test_logging_that_is_right_is_green(name: str) -> None:
    run = Run(read(PROJECTS / f"logs_{name}" / "pyproject.toml"))
    try:
        (row,) = run.contract.rows
        run.plan(row.check, row.name)
        verdict = run.verdict(row.check)
        assert verdict.healthy, verdict
        assert not verdict.warnings
    finally:
        run.close()


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_in_one_process_a_file_may_be_rotated(says: Says, pool: str) -> None:
    found = says(f"by_receiver(handler={ROTATING})", pool=pool)
    assert found.healthy, found


def test_a_rotation_that_knows_of_other_processes_is_let_be(says: Says) -> None:
    found = says(
        """
        class Careful(logging.handlers.RotatingFileHandler):
            def doRollover(self): ...
        by_receiver(handler={"class": "tiny.Careful", "filename": FILE, "maxBytes": 9, "backupCount": 1})
        """
    )
    assert found.healthy, found


def test_handlers_of_each_process_with_a_file_of_its_own(says: Says) -> None:
    found = says(
        """
        by_receiver()
        @signals.worker_process_init.connect
        def open_own(**_):
            own = logging.handlers.RotatingFileHandler(f"{FILE}.{os.getpid()}", maxBytes=10**6, backupCount=3)
            logging.root.addHandler(own)
        """
    )
    assert found.healthy, found


def test_a_handler_that_makes_no_text_brings_its_fields(says: Says) -> None:
    code = """
    from celery import current_task
    class Sdk(logging.Handler):
        def emit(self, record): ...
    class Context(logging.Filter):
        def filter(self, record):
            record.task_id = current_task.request.id if current_task else None
            return True
    def set_up(**_):
        configure(handler={"class": "tiny.Sdk"})
        logging.root.handlers[0].addFilter(Context())
    signals.setup_logging.connect(set_up)
    """
    assert says(code, fields=("task_id",)).healthy


def test_an_sdk_that_stands_between_loggers_and_handlers(says: Says) -> None:
    found = says(
        """
        class Sdk(logging.Handler):
            def emit(self, record): ...
        sdk, ask = Sdk(), logging.Logger.callHandlers
        def ask_and_tell(self, record):
            ask(self, record)
            sdk.handle(record)
        logging.Logger.callHandlers = ask_and_tell
        by_receiver(root=())
        """,
        must_reach={"Sdk": ("tiny", "celery.app.trace")},
    )
    assert found.healthy, found


def test_what_sleeps_in_a_module_is_not_woken_up(says: Says) -> None:
    found = says(
        """
        class Lazy:
            @property
            def __class__(self):
                raise RuntimeError("outside of a request")
        lazy = Lazy()
        """
    )
    assert found.healthy, found


# What is wrong.


def test_a_logger_that_goes_nowhere(says: Says) -> None:
    found = says('by_receiver(loggers={"tiny": {"propagate": False}})')
    assert lines(found) == [
        f"{name} reaches no handler: tiny does not propagate, and no handler is there;"
        " wanted one that takes WARNING and above"
        for name in ("tiny", "tiny.orders")
    ]


def test_loggers_that_were_there_before_are_disabled(says: Says) -> None:
    found = says("by_receiver(disable_existing_loggers=True)")
    assert "tiny.orders reaches no handler: the logger is disabled; wanted" in str(found)
    assert "celery.app.trace reaches no handler: the logger is disabled; wanted" in str(found)


def test_a_level_that_lets_too_little_through(says: Says) -> None:
    code = 'by_receiver(handler={"level": "ERROR"}, loggers={"tiny": {"level": "CRITICAL"}})'
    found = says(code)
    assert (
        "tiny.orders reaches no handler at WARNING and ERROR: the level of tiny is CRITICAL; wanted"
    ) in str(found)
    assert "celery.app.trace reaches no handler at WARNING: h (stderr): it takes ERROR and above" in str(
        found
    )
    assert says(code, level="CRITICAL").healthy


def test_a_filter_that_refuses(says: Says) -> None:
    found = says(
        """
        class Refuses(logging.Filter):
            def filter(self, record):
                return "order" not in record.name
        def set_up(**_):
            configure()
            logging.root.handlers[0].addFilter(Refuses())
            logging.getLogger("celery.app.trace").addFilter(lambda record: False)
        signals.setup_logging.connect(set_up)
        """
    )
    assert "tiny.orders reaches no handler: h (stderr): its filter refuses it; wanted" in str(found)
    assert "celery.app.trace reaches no handler: a filter of the logger refuses it; wanted" in str(found)


def test_a_receiver_of_setup_logging_that_sets_nothing_up(says: Says) -> None:
    found = says("signals.setup_logging.connect(lambda **_: None, weak=False)")
    assert (
        "tiny.orders reaches no handler: neither it nor any logger above it has a handler; wanted"
    ) in str(found)


def test_own_handlers_of_the_root_logger_are_hijacked(says: Says) -> None:
    found = says(
        """
        class Sdk(logging.Handler):
            def emit(self, record): ...
        logging.root.addHandler(Sdk())
        """
    )
    assert lines(found) == [
        "Sdk is taken away when a worker sets up logging, from root, and gets no record; wanted its records"
        " (connect a handler to setup_logging, or set worker_hijack_root_logger = False)"
    ]


def test_a_plain_handler_of_the_root_logger_is_only_replaced(says: Says) -> None:
    found = says("logging.basicConfig(level=logging.INFO)")
    assert found.healthy
    assert not found.warnings
    found = says("logging.basicConfig(format='%(process)d %(message)s')")
    assert found.healthy
    assert [each.line() for each in found.warnings] == [
        "StreamHandler loses its place to Celery's own, from root, and gets no record (stderr);"
        " wanted its records"
        " (connect a handler to setup_logging, or set worker_hijack_root_logger = False)"
    ]


def test_handlers_that_are_put_back_are_not_gone(says: Says) -> None:
    found = says(
        """
        class Sdk(logging.Handler):
            def emit(self, record): ...
        sdk = Sdk()
        logging.root.addHandler(sdk)
        @signals.after_setup_logger.connect
        def put_back(logger, **_):
            logger.addHandler(sdk)
        """
    )
    assert found.healthy, found


def test_a_formatter_that_wants_a_task_outside_of_tasks(says: Says) -> None:
    found = says(
        """
        from celery import current_task
        class Context(logging.Filter):
            def filter(self, record):
                if current_task:
                    record.task_name = current_task.name
                return True
        def set_up(**_):
            configure(formatter={"format": "[%(task_name)s] %(message)s"})
            logging.root.handlers[0].addFilter(Context())
        signals.setup_logging.connect(set_up)
        """
    )
    (line,) = lines(found)
    failure = "ValueError: Formatting field not found in record: 'task_name'"
    assert line.startswith(f"handler h fails with {failure} for records of ")
    assert " outside of tasks (StreamHandler, stderr); wanted" in line
    assert line.endswith("(celery.app.log.TaskFormatter has it for every record, in a task and out of one)")


def test_a_failure_to_format_of_which_nothing_tells(says: Says) -> None:
    """The guide's LOGGING where the root logger is not hijacked: an empty file, and not a word."""
    found = says(
        f"""
        app.conf.worker_hijack_root_logger = False
        own = {{"handlers": ["h"], "level": "INFO", "propagate": False}}
        configure(
            formatter={{"format": "[%(task_name)s(%(task_id)s)] %(message)s"}},
            handler={ROTATING},
            root=(),
            loggers={{"celery": own, "celery.task": own}},
        )
        """
    )
    told = str(found)
    failure = "ValueError: Formatting field not found in record: 'task_name'"
    assert f"handler h fails with {failure} for records of " in told
    assert ", and nothing tells of it (RotatingFileHandler, " in told
    assert "is rotated by each of 3 processes that write to it (RotatingFileHandler, " in told


def test_a_formatter_of_json_that_fails_with_what_is_no_json(says: Says) -> None:
    found = says(
        """
        import json
        class Json(logging.Formatter):
            def format(self, record):
                return json.dumps({"message": record.msg, "args": record.args})
        by_receiver(formatter={"()": "tiny.Json"})
        """
    )
    failure = "TypeError: Object of type TriedError is not JSON serializable"
    assert f"handler h fails with {failure} for records of " in str(found)


def test_a_handler_that_raises_where_it_is_logged(says: Says) -> None:
    found = says(
        """
        class Raises(logging.Handler):
            def emit(self, record):
                if "tries tiny" in record.getMessage():
                    raise OSError("no route to the log server")
        by_receiver(handler={"class": "tiny.Raises"})
        """
    )
    assert "fails with OSError: no route to the log server, raised where it was logged for" in str(found)


@pytest.mark.parametrize("kind", ["RotatingFileHandler", "TimedRotatingFileHandler"])
def test_a_file_that_several_processes_rotate(says: Says, kind: str) -> None:
    handler = (
        ROTATING if kind.startswith("R") else f'{{"class": "logging.handlers.{kind}", "filename": FILE}}'
    )
    code = f"by_receiver(handler={handler})"
    found = says(code)
    (line,) = lines(found)
    assert line.startswith(f"handler h is rotated by each of 3 processes that write to it ({kind}, ")
    assert "tasks.log); wanted one process that" in line
    assert says(code, allow=("rotation:h",)).healthy


def test_a_file_that_each_child_opens_to_rotate_it(says: Says) -> None:
    found = says(
        """
        by_receiver()
        @signals.worker_process_init.connect
        def open_one(**_):
            logging.root.addHandler(logging.handlers.RotatingFileHandler(FILE, maxBytes=10**6, backupCount=3))
        """
    )
    (line,) = lines(found)
    assert "is rotated by each of 2 processes that write to it" in line


def test_colours_in_a_file(says: Says) -> None:
    found = says(
        """
        formatter = {"()": "celery.app.log.TaskFormatter", "fmt": "%(levelname)s %(message)s"}
        by_receiver(formatter=formatter, handler={"class": "logging.FileHandler", "filename": FILE})
        """
    )
    (line,) = lines(found)
    assert line.startswith("handler h writes the escape codes of colours to a file (FileHandler, ")
    assert "tasks.log); wanted plain text" in line
    assert line.endswith("(give TaskFormatter use_color=False)")


def test_a_queue_whose_thread_did_not_survive_the_fork(says: Says) -> None:
    found = says(
        """
        import queue
        def set_up(**_):
            configure()
            (writer,) = logging.root.handlers
            waiting = queue.Queue()
            logging.root.handlers = [logging.handlers.QueueHandler(waiting)]
            logging.handlers.QueueListener(waiting, writer).start()
        signals.setup_logging.connect(set_up)
        """
    )
    assert lines(found) == [
        "QueueHandler keeps records: nobody takes records from its queue; wanted a listener in each process"
        " (threads do not survive a fork: start its listener in a handler of worker_process_init)"
    ]


def test_what_is_behind_a_queue_knows_no_task(says: Says) -> None:
    code = """
    import queue
    def listen(**_):
        configure(formatter={"()": "celery.app.log.TaskFormatter", "fmt": "%(task_id)s %(message)s"})
        (writer,) = logging.root.handlers
        waiting = queue.Queue()
        logging.root.handlers = [logging.handlers.QueueHandler(waiting)]
        logging.handlers.QueueListener(waiting, writer).start()
    signals.setup_logging.connect(listen)
    signals.worker_process_init.connect(listen)
    """
    assert says(code).healthy
    found = says(code, fields=("task_id",))
    assert lines(found)[0].startswith("tiny.orders has no task_id in ")


def test_fields_that_are_missing(says: Says) -> None:
    found = says("", fields=("task_id", "task_name"))
    (line,) = lines(found)
    assert line.startswith(
        "tiny.orders has no task_id or task_name in StreamHandler (stderr);"
        " wanted task_id and task_name in every record of a task (it writes ["
    )


def test_a_handler_that_is_not_reached(says: Says) -> None:
    found = says(
        "by_receiver()", must_reach={"h": ("tiny",), "sentry": ("tiny", "celery.app.trace"), "x": ("no",)}
    )
    assert lines(found) == [
        "tiny.orders never reaches sentry, only h (stderr); wanted WARNING and above there",
        "celery.app.trace never reaches sentry, only h (stderr); wanted WARNING and above there",
    ]
    assert [each.line() for each in found.blind] == [
        "cannot tell: the worker has no logger no, nor one below it"
    ]


STRUCTLOG = """
import structlog
log = structlog.get_logger()
def use():
    structlog.contextvars.bind_contextvars(order="o1")
"""


def test_structlog_that_nobody_configured_loses_its_levels(says: Says) -> None:
    found = says("import structlog\nlog = structlog.get_logger()")
    (line,) = lines(found)
    assert line == (
        "structlog of tiny arrives as WARNING when it is DEBUG, INFO, ERROR or CRITICAL;"
        " wanted the level that it was written at"
        " (it prints; give it logger_factory=structlog.stdlib.LoggerFactory())"
    )


def test_structlog_that_prints_past_logging_keeps_its_levels(says: Says) -> None:
    found = says("import structlog\nlog = structlog.get_logger()\napp.conf.worker_redirect_stdouts = False")
    assert found.healthy, found
    assert ("structlog of tiny", "task", "-", "DEBUG") in found.table


@pytest.mark.parametrize("clears", [True, False])
def test_what_structlog_binds_must_not_reach_the_next_task(says: Says, clears: bool) -> None:
    code = (
        STRUCTLOG
        + """
structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, structlog.processors.KeyValueRenderer()],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
"""
    )
    if clears:
        code += (
            "signals.task_prerun.connect(lambda **_: structlog.contextvars.clear_contextvars(), weak=False)"
        )
    found = says(code)
    assert lines(found) == (
        []
        if clears
        else [
            "structlog of tiny keeps what a task had bound for the next task of its process;"
            " wanted a context of its own for each task"
            " (clear it in a handler of task_prerun: structlog.contextvars.clear_contextvars())"
        ]
    )


def test_what_a_filter_remembers_must_not_reach_the_next_task(says: Says) -> None:
    found = says(
        """
        from contextvars import ContextVar
        task_of_now = ContextVar("task_of_now", default="")
        class Context(logging.Filter):
            def filter(self, record):
                record.task_id = task_of_now.get()
                return True
        @signals.task_prerun.connect
        def remember(task_id, **_):
            if not task_of_now.get():
                task_of_now.set(task_id)
        @signals.task_success.connect
        def forget(**_): ...
        def set_up(**_):
            configure(formatter={"format": "%(task_id)s %(message)s"})
            logging.root.handlers[0].addFilter(Context())
        signals.setup_logging.connect(set_up)
        """
    )
    assert lines(found)[0].startswith(
        "tiny.orders keeps what a task had bound for the next task of its process;"
    )


def test_what_a_handler_of_the_main_process_writes_is_seen(says: Says) -> None:
    """Not only records of ours: its arguments are others."""
    found = says(
        """
        class Positional(logging.Formatter):
            def format(self, record):
                return record.args["order"] if "is unknown" in str(record.msg) else record.getMessage()
        by_receiver(formatter={"()": "tiny.Positional"})
        @signals.task_unknown.connect
        def tell(name, **_):
            logger.error("%(name)s is unknown", {"name": name})
        """
    )
    (line,) = lines(found)
    assert "fails with KeyError: 'order' for records of tiny.orders outside of tasks (" in line


# What `alerts` makes of it.


def test_an_alert_to_the_log_that_nobody_takes_is_lost(tmp_path: Path) -> None:
    code = """
    by_receiver(loggers={"tiny": {"propagate": False}})
    @signals.task_failure.connect
    def tell(sender, **_):
        logger.error("%s failed", sender.name)
        logging.getLogger("mail").error("%s failed", sender.name)
    """
    (tmp_path / "tiny.py").write_text(TINY + textwrap.dedent(code))
    drills = Drills(SandboxSpec(), AppSpec("tiny:app", tmp_path))
    check = AlertsReach({"log:tiny": ("raises",), "log:mail": ("raises",)}, ends=())
    try:
        seen = [drilled(drills, ask) for ask in check.asks() if isinstance(ask, AskDrills)]
        record = drills("raises").expect_log(logger="tiny")
    finally:
        drills.close()
    assert lines(judge(check, Snapshot(*seen))) == [
        "raises never reaches log:tiny: tiny does not propagate, and no handler is there;"
        " wanted an alert to log:tiny"
    ]
    (ending,) = seen[0].seen
    assert Output("log", "mail") in ending.outputs
    assert record.deliveries == ()
    assert record.nobody == "tiny does not propagate, and no handler is there"
