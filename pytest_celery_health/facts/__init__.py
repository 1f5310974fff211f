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
    AskLogs,
    AskMetrics,
    AskProbe,
    AskPublishers,
    AskQueues,
    AskSchedule,
    AskTrials,
    AskWorkers,
    merge,
)
from pytest_celery_health.facts.drills import Drilled, Ending, Output
from pytest_celery_health.facts.handlers import Call, Handler, Handlers, Leak, Trial, Trials
from pytest_celery_health.facts.logs import Delivery, LogHandler, LogLine, Logs
from pytest_celery_health.facts.metrics import Count, Counted, Gauged, Sample, Scraped, ScrapePlan
from pytest_celery_health.facts.probes import Answer, Probe, Probed, Setting
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
    "Answer",
    "App",
    "Ask",
    "AskApp",
    "AskBeat",
    "AskDrills",
    "AskHandlers",
    "AskLogs",
    "AskMetrics",
    "AskProbe",
    "AskPublishers",
    "AskQueues",
    "AskSchedule",
    "AskTrials",
    "AskWorkers",
    "Beat",
    "Call",
    "Count",
    "Counted",
    "Delivery",
    "Drilled",
    "Ending",
    "Entry",
    "Fact",
    "Gauged",
    "Handler",
    "Handlers",
    "Leak",
    "LogHandler",
    "LogLine",
    "Logs",
    "Output",
    "Probe",
    "Probed",
    "Progress",
    "Published",
    "Publishing",
    "Queue",
    "Queues",
    "RunningTask",
    "Sample",
    "Schedule",
    "ScrapePlan",
    "Scraped",
    "Setting",
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
