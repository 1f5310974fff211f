"""What a scrape showed of a worker's metrics, and what there was to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: What a queue gauge is tried with, in this order.
FILLED, DRAINED, BROKER_GONE = "filled", "drained", "broker_gone"


@dataclass(frozen=True, slots=True)
class ScrapePlan:
    """What is to be scraped, and what is done to see it there: the fields of a row of `metrics`."""

    scrape: str
    counts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    gauge: str = ""
    collector: str = ""
    label: str = "queue"
    queues: tuple[str, ...] = ()
    priorities: tuple[int, ...] = (0,)
    freshness: str = ""
    pool: str = ""
    within: float = 10.0


@dataclass(frozen=True, slots=True)
class Count:
    """By how much a metric went up in one process of the worker; `process` is "main" or "child"."""

    process: str
    pid: int
    by: float


@dataclass(frozen=True, slots=True)
class Counted:
    """A metric that handlers count with, after tasks came to the ends that it is to count.

    tasks: how many came to each end. counts: what its processes counted; () where nobody saw them count, as
    in a registry of the project's own. silent: ends of which they counted none.
    shown: by how much a scrape says that it went up, None when it is not there. no_scrape: why there was
    none. unseen: why an end was not reached, by end.
    """

    metric: str
    tasks: Mapping[str, int] = field(default_factory=dict)
    counts: tuple[Count, ...] = ()
    silent: tuple[str, ...] = ()
    shown: float | None = None
    no_scrape: str = ""
    unseen: Mapping[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> float:
        """What a scrape should show."""
        return sum(count.by for count in self.counts) or float(sum(self.tasks.values()))


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a metric in a scrape."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Gauged:
    """What a scrape showed of a queue gauge after its collector had run.

    step: FILLED, DRAINED or BROKER_GONE. messages: how many were in each queue; by "" those of all queues,
    for a gauge without a label. first: how many of them had the first priority that was put in.
    no_scrape: why there was none. ended: how the collector ended, where it did not just return.
    set_in: the processes, "main" or "child", in which the gauge was set. told: the value of the metric
    `freshness`.
    """

    step: str
    messages: Mapping[str, int]
    shown: tuple[Sample, ...] = ()
    first: Mapping[str, int] = field(default_factory=dict)
    no_scrape: str = ""
    ended: str = ""
    set_in: tuple[str, ...] = ()
    told: float | None = None

    def values(self, label: str, queue: str) -> list[float]:
        """What is shown of `queue`: nothing, one value, or those of several processes."""
        shown = [each.value for each in self.shown if not label or each.labels.get(label) == queue]
        return sorted(dict.fromkeys(shown), reverse=True)

    def wrong(self, label: str, queue: str) -> list[float]:
        """Those of them that it should not show."""
        values = self.values(label, queue)
        if self.step == BROKER_GONE:  # a negative number is as good as NaN: no queue is that long
            return [value for value in values if value >= 0]
        wanted = self.messages[queue] if self.step == FILLED else 0
        return [value for value in values if value != wanted]

    def right(self, plan: ScrapePlan) -> bool:
        """Whether nothing is wrong, and nothing missing that the plan names."""
        if any(self.wrong(plan.label, queue) for queue in self.messages):
            return False
        if self.step != FILLED:
            return self.step == BROKER_GONE or not self.no_scrape
        shown = [bool(self.values(plan.label, queue)) for queue in self.messages]
        return all(shown) if plan.queues else any(shown)


@dataclass(frozen=True, slots=True)
class Scraped:
    """What was scraped of a real worker. errors: what its handlers did wrong meanwhile."""

    plan: ScrapePlan
    counted: tuple[Counted, ...] = ()
    gauged: tuple[Gauged, ...] = ()
    errors: tuple[str, ...] = ()
