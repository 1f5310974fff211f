"""Whether what is counted and measured in a worker is seen where it is scraped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import pairwise
from typing import ClassVar
from urllib.parse import urlsplit

from pytest_celery_health.checks.alerts import DEATHS, OTHERS, refuse_unknown_end, refuse_unknown_pool
from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import first_names, listed, plural
from pytest_celery_health.durations import Duration, seconds
from pytest_celery_health.facts import (
    Ask,
    AskMetrics,
    Counted,
    Gauged,
    Scraped,
    ScrapePlan,
    Snapshot,
    Unseen,
)
from pytest_celery_health.facts.metrics import BROKER_GONE, DRAINED, FILLED
from pytest_celery_health.verdict import Finding

#: Ends that the worker, or its metrics' server, does not survive.
ENDS_WORKER = (
    "memory_error",
    "broker_lost",
    "warm_shutdown",
    "soft_shutdown",
    "cold_shutdown",
    "worker_starts",
    "worker_killed",
)
#: Ends that a metric can be asked to count.
COUNTABLE = tuple(end for end in (*DEATHS, *OTHERS) if end not in ENDS_WORKER)
_WORKER, _MULTIPROCESS, _CALL, _PUSH = "worker", "multiprocess", "call", "push"
_HERE = ("localhost", "0.0.0.0", "::1", "::")  # noqa: S104 - compared, not bound


@dataclass(frozen=True)
class MetricsScraped(Check):
    """What handlers count and a collector measures is seen where it is scraped.

    scrape: where that is: the URL that the worker itself serves, such as "http://127.0.0.1:9808/metrics";
        "worker", the default registry of its main process; "multiprocess", the files in
        PROMETHEUS_MULTIPROC_DIR; "call:package.module:function", the text that the function returns in
        another process; "push:HOST", a Pushgateway.
    counts: by metric, the ends of a task that it counts, of those that the worker survives.
    gauge: the metric that shows how many messages are ready in each queue. It is tried with full queues, with
        empty ones, and without a broker, where a number that is not negative is a lie.
    collector: the task that sets the gauge; unless given, the gauge is expected to measure by itself.
    label: the gauge's label that names the queue; "" if it shows the sum of all.
    queues: queues that the gauge must show; unless given, those of the app that it does show.
    priorities: those that the messages have; [0] where the project uses none.
    freshness: a metric that tells when the gauge is no longer fresh, and so may keep its last value: a time
        of the last success, a count of failures.
    pool: "prefork", "solo" or "threads"; unless given, the sandbox's.
    within: how long a run of the collector, or a scrape, may take.

    Source: a real worker of the sandbox, of two processes or threads, each of which does all of it.
    """

    needs_sandbox: ClassVar[bool] = True

    scrape: str
    _: KW_ONLY
    counts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gauge: str = ""
    collector: str = ""
    label: str = "queue"
    queues: tuple[str, ...] = ()
    priorities: tuple[int, ...] = (0, 3, 6, 9)
    freshness: str = ""
    pool: str = ""
    within: Duration = 10.0

    def __post_init__(self) -> None:
        self._in_seconds("within")
        if not self.within:
            raise ValueError("within is 0, which no scrape can meet")
        _refuse_place(self.scrape)
        if not self.counts and not self.gauge:
            raise ValueError("neither counts nor gauge is given, so there is no metric to look for")
        for name in ("collector", "freshness"):
            if getattr(self, name) and not self.gauge:
                raise ValueError(f"{name} is given without gauge, which it is for")
        for metric, ends in self.counts.items():
            if not ends:
                raise ValueError(f'counts has no end for "{metric}"; write ["raises", "worker_lost"], say')
            for end in ends:
                if end in ENDS_WORKER:
                    raise ValueError(f'counts has "{end}", after which there is no worker left to scrape')
                refuse_unknown_end("counts", end, COUNTABLE)
        if not self.priorities or not all(0 <= each <= 255 for each in self.priorities):
            raise ValueError("priorities are numbers from 0 to 255, such as [0, 3, 6, 9]")
        refuse_unknown_pool(self.pool)

    @property
    def plan(self) -> ScrapePlan:
        """What is asked for, and what a `Scraped` is the answer to."""
        return ScrapePlan(
            self.scrape,
            tuple((metric, tuple(dict.fromkeys(ends))) for metric, ends in self.counts.items()),
            self.gauge,
            self.collector,
            self.label,
            self.queues,
            self.priorities,
            self.freshness,
            self.pool,
            seconds(self.within),
        )

    def asks(self) -> Iterable[Ask]:
        yield AskMetrics(self.plan)

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        scraped = seen.fact(Scraped, plan=self.plan)
        if isinstance(scraped, Unseen):
            yield Finding.unseen("metrics", scraped)
            return
        more = len(scraped.errors) - 1
        hint = f"meanwhile {scraped.errors[0]}" if scraped.errors else ""
        hint += f", and {plural(more, 'other error')}" if more > 0 else ""
        for counted in scraped.counted:
            yield from self._of_count(counted, hint)
        yield from self._of_gauge(scraped, hint)

    def table(self, seen: Snapshot) -> Iterable[Sequence[str]]:
        scraped = seen.fact(Scraped, plan=self.plan)
        if isinstance(scraped, Unseen):
            return
        yield "metric", "when", "set in", "scrape shows", "wanted"
        for counted in scraped.counted:
            ends = [f"{count} x {end}" for end, count in counted.tasks.items()]
            counts = _by_process(counted) if counted.counts else "nowhere seen"
            shown = "-" if counted.shown is None else _number(counted.shown)
            yield counted.metric, ", ".join(ends), counts, shown, _number(counted.wanted)
        for gauged in scraped.gauged:
            for queue, messages in gauged.messages.items():
                values = _numbers(gauged.values(self.label, queue)) or "-"
                when, wanted = {
                    FILLED: (plural(messages, "message"), str(messages)),
                    DRAINED: ("drained", "0"),
                    BROKER_GONE: (
                        "broker gone",
                        f"no number{f', or {self.freshness}' if self.freshness else ''}",
                    ),
                }[gauged.step]
                yield self._name(queue), when, listed(gauged.set_in or ("-",)), values, wanted

    # What handlers count.

    def _of_count(self, counted: Counted, hint: str) -> Iterator[Finding]:
        for end, why in counted.unseen.items():
            yield Finding(None, end, why)
        if not counted.tasks:
            return
        metric, wanted, place = counted.metric, _number(counted.wanted), self._place
        figures = {f"{metric}.shown": "-" if counted.shown is None else counted.shown}
        if counted.silent:
            seen = f"counts no task that comes to {listed(counted.silent, 'or')}"
            yield Finding(False, metric, seen, "a count of each", hint)
        tasks = " and ".join(f"{count} tasks came to {end}" for end, count in counted.tasks.items())
        was = f"it was counted {_times(counted.wanted)} in {_by_process(counted)}" if counted.counts else ""
        if counted.no_scrape:
            seen = f"was not scraped: {counted.no_scrape}" + (f", though {was}" if was else "")
            yield Finding(False, metric, seen, f"{wanted} in {place}", hint)
        elif counted.shown is None:
            yield Finding(
                False, metric, f"is not in {place}, though {was or tasks}", wanted, hint, figures=figures
            )
        elif counted.shown < counted.wanted:
            seen = f"shows {_number(counted.shown)} more in {place}, though {was or tasks}"
            yield Finding(False, metric, seen, wanted, hint, figures=figures)
        elif not counted.silent:
            yield Finding(True, metric, f"shows all {wanted} in {place}", figures=figures)

    # What a collector measures.

    def _of_gauge(self, scraped: Scraped, hint: str) -> Iterator[Finding]:
        right: list[str] = []
        for at, gauged in enumerate(scraped.gauged):
            found = list(self._of_step(gauged, scraped.gauged[:at], hint))
            yield from found
            if not any(finding.ok is False and not finding.warning for finding in found):
                right.append(gauged.step)
        if scraped.gauged and len(right) == len(scraped.gauged):
            first = scraped.gauged[0]
            queues = [queue for queue in first.messages if first.values(self.label, queue)]
            follows = first_names(queues) if any(queues) else "all queues"
            figures: dict[str, float | str] = {
                f"{self._name(queue)}.{gauged.step}": _numbers(gauged.values(self.label, queue)) or "-"
                for gauged in scraped.gauged
                for queue in queues
            }
            seen = f"follows {follows}, full and empty, and tells when the broker is gone"
            yield Finding(True, self.gauge, seen, figures=figures)

    def _of_step(self, gauged: Gauged, before: Sequence[Gauged], hint: str) -> Iterator[Finding]:
        ran = f"{self.collector} {gauged.ended}" if gauged.ended else ""
        hint = "; ".join(note for note in (ran, hint) if note)
        if gauged.step == BROKER_GONE:
            if not self._tells(gauged, before):
                yield from self._stale(gauged, before, ran)
            return
        if gauged.no_scrape:
            yield Finding(False, self.gauge, f"was not scraped: {gauged.no_scrape}", self._place, hint)
            return
        if gauged.step == FILLED and not any(gauged.values(self.label, queue) for queue in gauged.messages):
            yield self._nowhere(gauged, hint)
            return
        for queue, messages in gauged.messages.items():
            wrong = gauged.wrong(self.label, queue)
            full = gauged.step == FILLED
            wanted = str(messages if full else 0)
            of = f" for {queue}" if queue else ""
            when = f"with {plural(messages, 'message')} in {'it' if queue else 'all queues'}"
            if not full:
                when = f"after {'it was' if queue else 'all queues were'} drained"
            if wrong:
                seen = f"shows {_numbers(gauged.values(self.label, queue))}{of} {when}"
                notes = (self._why(gauged, queue, wrong), hint)
                yield Finding(False, self.gauge, seen, wanted, "; ".join(n for n in notes if n))
            elif not gauged.values(self.label, queue):
                shown_before = any(step.values(self.label, queue) for step in before)
                if full:
                    seen = f"has no value{of} in {self._place}, {when}"
                    yield Finding(False, self.gauge, seen, wanted, hint, warning=not self.queues)
                elif shown_before:
                    seen = f"has no value{of} any more in {self._place} {when}"
                    yield Finding(False, self.gauge, seen, wanted, hint, warning=True)

    def _nowhere(self, gauged: Gauged, hint: str) -> Finding:
        queues = [queue for queue in gauged.messages if queue]
        where = f" in {first_names(queues)}" if queues else ""
        most = max(gauged.messages.values())
        if gauged.shown:
            labels = sorted({name for sample in gauged.shown for name in sample.labels})
            seen = f"has no value of {self.label} for {first_names(queues)} in {self._place}"
            seen += f", with the labels {listed(labels)}" if labels else ", and has no label"
        elif gauged.set_in:
            seen = f"is not in {self._place}, though it was set in {_processes(gauged.set_in)}"
        elif self.collector:
            seen = (
                f"is not in {self._place} after a run of {self.collector}, which was seen to set it nowhere"
            )
        else:
            seen = f"is not in {self._place}"
        return Finding(False, self.gauge, seen, f"{most}, with as many messages{where}", hint)

    def _why(self, gauged: Gauged, queue: str, wrong: Sequence[float]) -> str:
        first = gauged.first.get(queue, 0)
        if gauged.step == FILLED and wrong == [first] and first:
            return f"{plural(first, 'message')} of them have the priority {self.priorities[0]}"
        if len(gauged.values(self.label, queue)) > 1:
            return "one value of each process"
        if gauged.set_in:
            return f"it was set in {_processes(gauged.set_in)}"
        return f"{self.collector} did not set it" if self.collector and not gauged.ended else ""

    def _stale(self, gauged: Gauged, before: Sequence[Gauged], ran: str) -> Iterator[Finding]:
        for queue in gauged.messages:
            wrong = gauged.wrong(self.label, queue)
            if not wrong:
                continue
            same = bool(before) and wrong == before[-1].values(self.label, queue)
            of = f" for {queue}" if queue else ""
            seen = f"{'still ' if same else ''}shows {_numbers(wrong)}{of} with the broker gone"
            told = f"{self.freshness} does not tell" if self.freshness else ""
            wanted = "NaN, nothing, or a metric `freshness` that tells it"
            yield Finding(False, self.gauge, seen, wanted, "; ".join(n for n in (told, ran) if n))

    def _tells(self, gauged: Gauged, before: Sequence[Gauged]) -> bool:
        """Whether the metric `freshness` moves without a broker and did not with one, or the reverse."""
        if not self.freshness or not before or gauged.no_scrape:
            return False
        told = [step.told for step in before]
        moved_with = any(a != b for a, b in pairwise(told))
        moved_without = gauged.told != told[-1]
        return moved_with != moved_without

    def _name(self, queue: str) -> str:
        return f'{self.gauge}{{{self.label}="{queue}"}}' if queue else self.gauge

    @property
    def _place(self) -> str:
        kind, _, rest = self.scrape.partition(":")
        if kind == _CALL:
            return f"what {rest} returns"
        if kind == _PUSH:
            return f"what was pushed to {rest}"
        known = {_WORKER: "the worker's main process", _MULTIPROCESS: "PROMETHEUS_MULTIPROC_DIR"}
        return f"the scrape of {known.get(self.scrape, self.scrape)}"


def _refuse_place(scrape: str) -> None:
    kind, _, rest = scrape.partition(":")
    if scrape in (_WORKER, _MULTIPROCESS):
        return
    if kind == _CALL and all(rest.partition(":")[::2]):
        return
    if kind == _PUSH and rest and "/" not in rest:
        return
    if kind == "http":
        try:
            url = urlsplit(scrape)
            host, port = url.hostname or "", url.port
        except ValueError:
            host, port = "", None
        if host and port and (host in _HERE or host.startswith("127.")):
            return
        raise ValueError(
            f'scrape is "{scrape}"; write what the worker serves on its own machine, with its port,'
            f' "http://127.0.0.1:9808/metrics" say, or "push:{host or "HOST"}" for a Pushgateway'
        )
    raise ValueError(
        f'scrape is "{scrape}"; write "http://127.0.0.1:PORT/metrics", "worker", "multiprocess",'
        ' "call:package.module:function" or "push:HOST"'
    )


def _by_process(counted: Counted) -> str:
    """ "2 pool children and the main process"."""
    children = len({count.pid for count in counted.counts if count.process == "child"})
    main = any(count.process == "main" for count in counted.counts)
    some = [plural(children, "pool child", "pool children")] if children else []
    return " and ".join([*some, *(["the main process"] if main else [])])


def _processes(set_in: Sequence[str]) -> str:
    names = {"main": "the main process", "child": "a pool child"}
    return listed([names.get(each, each) for each in dict.fromkeys(set_in)])


def _times(count: float) -> str:
    return {1.0: "once", 2.0: "twice"}.get(count, f"{_number(count)} times")


def _number(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) and value == int(value) else f"{value:g}"


def _numbers(values: Sequence[float]) -> str:
    return listed([_number(value) for value in values]) if values else ""
