"""Make what a team promises about its Celery system into tests. See the README."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_celery_health.checks import (
        AlertsReach,
        BeatFresh,
        Check,
        HandlersConnected,
        HandlersSurvive,
        LogsArrive,
        MetricsScraped,
        ProbeTells,
        QueueDepth,
        ScheduleRuns,
        WorkersAnswer,
    )
    from pytest_celery_health.facts import (
        Answer,
        App,
        AskApp,
        AskBeat,
        AskDrills,
        AskHandlers,
        AskLogs,
        AskMetrics,
        AskProbe,
        AskQueues,
        AskSchedule,
        AskTrials,
        AskWorkers,
        Beat,
        Call,
        Count,
        Counted,
        Delivery,
        Drilled,
        Ending,
        Entry,
        Gauged,
        Handler,
        Handlers,
        Leak,
        LogHandler,
        LogLine,
        Logs,
        Output,
        Probe,
        Probed,
        Progress,
        Queue,
        Queues,
        RunningTask,
        Sample,
        Schedule,
        Scraped,
        ScrapePlan,
        Setting,
        Snapshot,
        Trial,
        Trials,
        Unacked,
        Unseen,
        Worker,
        Workers,
    )
    from pytest_celery_health.record.recording import HandlerError, Recording
    from pytest_celery_health.verdict import Finding, Verdict, judge

__all__ = [
    "AlertsReach",
    "Answer",
    "App",
    "AskApp",
    "AskBeat",
    "AskDrills",
    "AskHandlers",
    "AskLogs",
    "AskMetrics",
    "AskProbe",
    "AskQueues",
    "AskSchedule",
    "AskTrials",
    "AskWorkers",
    "Beat",
    "BeatFresh",
    "Call",
    "Check",
    "Count",
    "Counted",
    "Delivery",
    "Drilled",
    "Ending",
    "Entry",
    "Finding",
    "Gauged",
    "Handler",
    "HandlerError",
    "Handlers",
    "HandlersConnected",
    "HandlersSurvive",
    "Leak",
    "LogHandler",
    "LogLine",
    "Logs",
    "LogsArrive",
    "MetricsScraped",
    "Output",
    "Probe",
    "ProbeTells",
    "Probed",
    "Progress",
    "Queue",
    "QueueDepth",
    "Queues",
    "Recording",
    "RunningTask",
    "Sample",
    "Schedule",
    "ScheduleRuns",
    "ScrapePlan",
    "Scraped",
    "Setting",
    "Snapshot",
    "Trial",
    "Trials",
    "Unacked",
    "Unseen",
    "Verdict",
    "Worker",
    "Workers",
    "WorkersAnswer",
    "judge",
]

if not TYPE_CHECKING:  # a type checker would take any name for a public one

    def __getattr__(name: str) -> object:
        """Import the public names when they are asked for: every pytest run imports this package."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from pytest_celery_health import checks, facts, verdict
        from pytest_celery_health.record import recording

        return next(vars(home)[name] for home in (checks, facts, verdict, recording) if name in vars(home))


def __dir__() -> list[str]:
    return __all__
