"""What can be seen of a Celery system: immutable facts, and what a look is asked for.

Standard library only. What could not be seen is `Unseen(why)`: never zero, never empty, never
healthy.
"""

from __future__ import annotations

from pytest_celery_health.facts.asks import (
    Ask,
    AskApp,
    AskBeat,
    AskDrills,
    AskHandlers,
    AskPublishers,
    AskQueues,
    AskSchedule,
    AskTrials,
    AskWorkers,
    merge,
)
from pytest_celery_health.facts.drills import Drilled, Ending, Output
from pytest_celery_health.facts.handlers import Call, Handler, Handlers, Leak, Trial, Trials
from pytest_celery_health.facts.publishers import Published, Publishing
from pytest_celery_health.facts.snapshot import Fact, Snapshot, is_pattern
from pytest_celery_health.facts.system import (
    App,
    Beat,
    Entry,
    Progress,
    Queue,
    Queues,
    RunningTask,
    Schedule,
    Unacked,
    Worker,
    Workers,
)
from pytest_celery_health.facts.unseen import NOT_ASKED, Unseen

__all__ = [
    "NOT_ASKED",
    "App",
    "Ask",
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
    "Call",
    "Drilled",
    "Ending",
    "Entry",
    "Fact",
    "Handler",
    "Handlers",
    "Leak",
    "Output",
    "Progress",
    "Published",
    "Publishing",
    "Queue",
    "Queues",
    "RunningTask",
    "Schedule",
    "Snapshot",
    "Trial",
    "Trials",
    "Unacked",
    "Unseen",
    "Worker",
    "Workers",
    "is_pattern",
    "merge",
]
