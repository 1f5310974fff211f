"""Make what a team promises about its Celery system into tests. See the README."""

from __future__ import annotations

from pytest_celery_health.checks import (
    BeatFresh,
    Check,
    QueueDepth,
    ScheduleRuns,
    WorkersAnswer,
)
from pytest_celery_health.facts import (
    App,
    AskApp,
    AskBeat,
    AskQueues,
    AskSchedule,
    AskWorkers,
    Beat,
    Entry,
    Progress,
    Queue,
    Queues,
    RunningTask,
    Schedule,
    Snapshot,
    Unacked,
    Unseen,
    Worker,
    Workers,
)
from pytest_celery_health.verdict import Finding, Verdict, judge

__all__ = [
    "App",
    "AskApp",
    "AskBeat",
    "AskQueues",
    "AskSchedule",
    "AskWorkers",
    "Beat",
    "BeatFresh",
    "Check",
    "Entry",
    "Finding",
    "Progress",
    "Queue",
    "QueueDepth",
    "Queues",
    "RunningTask",
    "Schedule",
    "ScheduleRuns",
    "Snapshot",
    "Unacked",
    "Unseen",
    "Verdict",
    "Worker",
    "Workers",
    "WorkersAnswer",
    "judge",
]
