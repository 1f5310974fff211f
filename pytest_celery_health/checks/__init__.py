"""The checks, by the name that a contract's `use` gives them. A new one is one file and one line here."""

from __future__ import annotations

from pytest_celery_health.checks.alerts import AlertsReach
from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.beat import BeatFresh
from pytest_celery_health.checks.handlers import HandlersConnected
from pytest_celery_health.checks.logs import LogsArrive
from pytest_celery_health.checks.metrics import MetricsScraped
from pytest_celery_health.checks.probe import ProbeTells
from pytest_celery_health.checks.publisher import PublisherEnds
from pytest_celery_health.checks.queue import QueueDepth
from pytest_celery_health.checks.schedule import ScheduleRuns
from pytest_celery_health.checks.survive import HandlersSurvive
from pytest_celery_health.checks.workers import WorkersAnswer

CHECKS: dict[str, type[Check]] = {
    "alerts": AlertsReach,
    "beat": BeatFresh,
    "handlers": HandlersConnected,
    "logs": LogsArrive,
    "metrics": MetricsScraped,
    "probe": ProbeTells,
    "publisher": PublisherEnds,
    "queue": QueueDepth,
    "schedule": ScheduleRuns,
    "survive": HandlersSurvive,
    "workers": WorkersAnswer,
}

__all__ = [
    "CHECKS",
    "AlertsReach",
    "BeatFresh",
    "Check",
    "HandlersConnected",
    "HandlersSurvive",
    "LogsArrive",
    "MetricsScraped",
    "ProbeTells",
    "PublisherEnds",
    "QueueDepth",
    "ScheduleRuns",
    "WorkersAnswer",
]
