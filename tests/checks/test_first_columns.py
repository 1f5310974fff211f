"""The short summary of a terminal of 80 columns ends in mid-sentence: the evidence stands before that."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from pytest_celery_health import (
    AlertsReach,
    Answer,
    Beat,
    BeatFresh,
    Call,
    Check,
    Count,
    Counted,
    Delivery,
    Drilled,
    Ending,
    Entry,
    Gauged,
    Handler,
    Handlers,
    HandlersConnected,
    HandlersSurvive,
    LogHandler,
    LogLine,
    Logs,
    LogsArrive,
    MetricsScraped,
    Output,
    Probed,
    ProbeTells,
    Published,
    PublisherEnds,
    Publishing,
    Queue,
    QueueDepth,
    Sample,
    Schedule,
    ScheduleRuns,
    Scraped,
    Snapshot,
    Trial,
    Trials,
    Unacked,
    Worker,
    Workers,
    WorkersAnswer,
    judge,
)
from pytest_celery_health.checks import CHECKS
from pytest_celery_health.facts.metrics import FILLED
from tests.support.summary import at_80_columns

NOON = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
SLACK = "hooks.slack.com"
FLEET = Workers((Worker("w1@web-1", queues=("default",), tasks=frozenset({"shop.tasks.refund"})),))
SIGNALS = {"name": "shop.signals:notify_failure", "where": "shop/signals.py:12"}
GAUGE = MetricsScraped("worker", gauge="celery_queue_length", collector="shop.tasks.collect")
COUNTS = MetricsScraped("worker", counts={"celery_tasks_failed_total": ("raises",)})
HEALTHZ = ProbeTells(call="shop.health:check_celery_health", unhealthy_when=("broker_refuses",))
FORMAT = Delivery("console", "stderr", "ERROR", error="KeyError: 'task_name'")
ROTATING = LogHandler("tasks", "/var/log/celery/tasks.log", "RotatingFileHandler", loggers=("celery",))
CALL = "shop.orders:place_order"


def handlers(**said: object) -> Snapshot:
    handler = Handler("task_failure", **SIGNALS, **said)  # type: ignore[arg-type]
    return Snapshot(Handlers((handler,), frozenset({"shop.signals"}), "5.7.0"))


def trials(**said: object) -> Snapshot:
    call = Call("shop.tasks.charge", **said)  # type: ignore[arg-type]
    return Snapshot(Trials((Trial("task_failure", **SIGNALS, calls=(call,)),), tasks=2))


def logs(*deliveries: Delivery, gone: tuple[LogHandler, ...] = ()) -> Snapshot:
    line = LogLine("shop.tasks", "ERROR", own=True, task="shop.pay", task_id="1", deliveries=deliveries)
    return Snapshot(Logs((line,), (LogHandler("console", "stderr"),), gone, ""))


def published(call: Publishing) -> Snapshot:
    well = Publishing("healthy", arrived={"shop.tasks.pack": 1})
    return Snapshot(Published(well, (call,), CALL, "", 3.0, "redis"))


def probed(*answers: Answer) -> Snapshot:
    [ask] = HEALTHZ.asks()
    return Snapshot(Probed(HEALTHZ.probe, answers, ask.setting))


LINES: list[tuple[str, Check, Snapshot, str]] = [
    ("workers", WorkersAnswer(at_least=3), Snapshot(FLEET), "1 worker answered; wanted at least ..."),
    (
        "workers",
        WorkersAnswer(tasks=("shop.tasks.charge",)),
        Snapshot(FLEET),
        "no worker has shop.tasks.charge reg...",
    ),
    (
        "billing",
        QueueDepth("billing", ready_below=1000),
        Snapshot(FLEET, Queue("billing", ready=1204)),
        "billing holds 1,204 ready messages;...",
    ),
    (
        "payments",
        QueueDepth("payments", oldest_unacked_below="1min"),
        Snapshot(FLEET, Queue("payments", ready=0), Unacked(7, 61.0)),
        "a message is 61 s old and unacknow...",
    ),
    (
        "beat",
        BeatFresh(within="2min"),
        Snapshot(Beat(NOON, note="redis:beat"), now=NOON + timedelta(hours=1, seconds=10)),
        "beat was last seen 1 h 10 s ago; wante...",
    ),
    (
        "schedule",
        ScheduleRuns(),
        Snapshot(FLEET, Schedule((Entry("nightly-report", "shop.report", queue="reports"),))),
        "reports is consumed by no worker, ...",
    ),
    (
        "schedule",
        ScheduleRuns(),
        Snapshot(FLEET, Schedule((Entry("nightly-report", "shop.gone", registered=False),))),
        "shop.gone is no task of the app, a...",
    ),
    ("handlers", HandlersConnected(), handlers(state="collected"), "notify_failure was collected, as i..."),
    (
        "handlers",
        HandlersConnected(),
        handlers(sender='"shop.charge"', sender_kind="text"),
        "notify_failure is never called: co...",
    ),
    (
        "survive",
        HandlersSurvive(),
        trials(error="raised KeyError: 'args'"),
        "notify_failure raised KeyError: 'ar...",
    ),
    (
        "survive",
        HandlersSurvive(),
        trials(unbounded=(SLACK,)),
        "notify_failure posts without a time...",
    ),
    (
        "alerts",
        AlertsReach({SLACK: ("worker_lost",)}, ends=()),
        Snapshot(Drilled((Ending("worker_lost", outputs=(Output("log", "shop"),)),), "", "")),
        "worker_lost never reaches hooks.slac...",
    ),
    (
        "metrics",
        GAUGE,
        Snapshot(
            Scraped(GAUGE.plan, gauged=(Gauged(FILLED, {"default": 10}, (Sample({"queue": "default"}, 3),)),))
        ),
        "celery_queue_length shows 3 for def...",
    ),
    (
        "metrics",
        COUNTS,
        Snapshot(
            Scraped(
                COUNTS.plan,
                (
                    Counted(
                        "celery_tasks_failed_total",
                        tasks={"raises": 2},
                        counts=(Count("child", 11, 2),),
                        shown=None,
                    ),
                ),
            )
        ),
        "celery_tasks_failed_total is not in...",
    ),
    ("logs", LogsArrive(), logs(FORMAT), "handler console fails with KeyError: '..."),
    ("logs", LogsArrive(), logs(gone=(ROTATING,)), "handler tasks is taken away when a wor..."),
    (
        "healthz",
        HEALTHZ,
        probed(Answer("", "healthy"), Answer("broker_refuses", "healthy")),
        "check_celery_health says healthy wh...",
    ),
    (
        "checkout",
        PublisherEnds(CALL, when=("broker_refuses",)),
        published(Publishing("broker_refuses", "new", "returned")),
        "place_order loses shop.tasks.pack:...",
    ),
    (
        "checkout",
        PublisherEnds(CALL, when=("broker_hangs",)),
        published(Publishing("broker_hangs", "new", "raised", arrived={"shop.tasks.pack": 4})),
        "place_order published 4 messages o...",
    ),
]


@pytest.mark.parametrize(("row", "check", "seen", "shown"), LINES)
def test_the_evidence_stands_first(row: str, check: Check, seen: Snapshot, shown: str) -> None:
    assert at_80_columns(row, judge(check, seen)) == shown


def test_every_check_is_here() -> None:
    assert {type(check) for _, check, *_ in LINES} == set(CHECKS.values())
