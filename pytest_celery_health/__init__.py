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
        PublisherEnds,
        QueueDepth,
        ScheduleRuns,
        WorkersAnswer,
    )
    from pytest_celery_health.facts import (
        App,
        AskApp,
        AskBeat,
        AskDrills,
        AskHandlers,
        AskPublishers,
        AskQueues,
        AskSchedule,
        AskTrials,
        AskWorkers,
        Beat,
        Call,
        Drilled,
        Ending,
        Entry,
        Handler,
        Handlers,
        Leak,
        Output,
        Progress,
        Published,
        Publishing,
        Queue,
        Queues,
        RunningTask,
        Schedule,
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
    "App",
    "AskApp",
    "AskBeat",
    "AskDrills",
    "AskHandlers",
    "AskPublishers",
    "AskQueues",
    "AskSchedule",
    "AskTrials",
    "AskWorkers",
    "Beat",
    "BeatFresh",
    "Call",
    "Check",
    "Drilled",
    "Ending",
    "Entry",
    "Finding",
    "Handler",
    "HandlerError",
    "Handlers",
    "HandlersConnected",
    "HandlersSurvive",
    "Leak",
    "Output",
    "Progress",
    "Published",
    "PublisherEnds",
    "Publishing",
    "Queue",
    "QueueDepth",
    "Queues",
    "Recording",
    "RunningTask",
    "Schedule",
    "ScheduleRuns",
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
