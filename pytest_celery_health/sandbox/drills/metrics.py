"""What is seen of a worker's metrics where they are scraped: counted by handlers, measured by a collector."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kombu import Connection, Producer

from pytest_celery_health.facts import Count, Counted, Gauged, Sample, Scraped, ScrapePlan
from pytest_celery_health.facts.metrics import BROKER_GONE, DRAINED, FILLED
from pytest_celery_health.masking import mask
from pytest_celery_health.project.child.load import LoadError, attribute
from pytest_celery_health.record.recorder import read
from pytest_celery_health.record.recording import MetricChange, Recording, SignalCall
from pytest_celery_health.sandbox import Sandbox, SandboxError
from pytest_celery_health.sandbox.brokers import free_port
from pytest_celery_health.sandbox.drills.crew import GRACE, RUNS_FOR, DrillError, Drills, Worker
from pytest_celery_health.sandbox.drills.ends import BODIES, ENDS, HEADER
from pytest_celery_health.sandbox.drills.scrapes import ScrapeError, Shown, scraper
from pytest_celery_health.sandbox.drills.stage import OverError, Stage, about, fold
from pytest_celery_health.sandbox.seal import MULTIPROC_DIR

#: Processes or threads of the worker: each has to be seen.
_CONCURRENCY = 2
#: Messages in the first queue, one more in each further one.
_MESSAGES = 10
#: Seconds that a value gets to show where something else than the task itself puts it there.
_SETTLE = 0.5
#: Seconds between two runs of a collector by which times that it notes must differ.
_RESOLUTION = 1.05
#: Seconds for what takes no time when all is well.
_PATIENCE, _MINUTE = 10.0, 60.0
_TICK = 0.02
#: What a counter's samples are called.
_COUNTERS = ("", "_total", "_count")


def scraped(crew: Drills, plan: ScrapePlan) -> Scraped:
    """What a scrape shows of the app's metrics, in a worker of two processes that is used for nothing else.

    Raises SandboxError when it does not start, or something that the plan needs is not there.
    """
    url = urlsplit(plan.scrape)
    ports = {url.port: free_port()} if url.scheme == "http" and url.port else {}
    env = {MULTIPROC_DIR: "the sandbox's"} if plan.scrape == "multiprocess" else {}
    with closing(crew.another(concurrency=_CONCURRENCY, ports=ports, env=env)) as own:
        try:
            sandbox, worker = own.worker(plan.pool, plan.collector)
            trial = _Trial(own, plan, sandbox, worker, ports)
            counted = tuple(trial.counted())
            gauged = tuple(trial.gauged())
        except DrillError as error:
            raise SandboxError(str(error).partition("\n")[0]) from error
        except OverError as error:
            raise SandboxError(f"the worker did not come to {error} in time") from error
        return Scraped(plan, counted, gauged, trial.errors())


class _Trial:
    def __init__(
        self, crew: Drills, plan: ScrapePlan, sandbox: Sandbox, worker: Worker, ports: Mapping[int, int]
    ) -> None:
        self.crew = crew
        self.plan = plan
        self.sandbox = sandbox
        self.worker = worker
        self.scrape = scraper(plan.scrape, sandbox, worker, ports)

    def errors(self) -> tuple[str, ...]:
        """What handlers did wrong, the worker's start included."""
        found = Recording(tuple(fold(self._recorded(0.0).entries)))
        return tuple(dict.fromkeys(found.masked(call.line()) for call in found.errors))

    # What handlers count.

    def counted(self) -> Iterator[Counted]:
        """The metrics that count, after a task has come to each of their ends in each process."""
        if not self.plan.counts:
            return
        before, _ = self._look(lambda _: True, 2.0)
        began = time.monotonic()
        ends = dict.fromkeys(end for _, ends in self.plan.counts for end in ends)
        drilled: dict[str, list[set[str]]] = {end: [] for end in ends}
        unseen: dict[str, str] = {}
        for _ in self._in_each_process():
            for end in ends:
                if end not in unseen:
                    try:
                        drilled[end].append(self._drill(end))
                    except (DrillError, LoadError, ModuleNotFoundError) as error:
                        unseen[end] = str(error).partition("\n")[0]
        recorded = self._recorded(began)
        metrics = {metric: _counts(recorded, metric) for metric, _ in self.plan.counts}

        def arrived(shown: Shown) -> bool:
            return all(
                (_rise(before, shown, metric) or 0.0) >= sum(count.by for count in counts)
                for metric, counts in metrics.items()
            )

        after, why = self._look(arrived, _SETTLE)
        for metric, ends_of_it in self.plan.counts:
            seen = [end for end in ends_of_it if end not in unseen]
            counts = metrics[metric]
            silent = [end for end in seen if not all(metric in each for each in drilled[end])]
            yield Counted(
                metric,
                {end: len(drilled[end]) for end in seen},
                counts,
                tuple(silent) if counts else (),
                _rise(before, after, metric),
                why,
                {end: unseen[end] for end in ends_of_it if end in unseen},
            )

    def _drill(self, end: str) -> set[str]:
        """The metrics that counted it."""
        began = time.monotonic()
        found = self.crew(attribute(end) if ":" in end else end, pool=self.plan.pool)
        if found.exit_code is not None:
            raise DrillError(f"{end}: it ended the worker, and with it what is scraped")
        wanted = {metric for metric, ends in self.plan.counts if end in ends}
        over = time.monotonic() + _SETTLE  # a process tells of its metrics last
        while True:
            recorded = self._recorded(began)
            counted = {metric for metric in wanted if _counts(recorded, metric)}
            if counted == wanted or time.monotonic() > over:
                return counted
            time.sleep(_TICK)

    def _in_each_process(self) -> Iterator[None]:
        """Once with either of the worker's two processes or threads busy, where it can be."""
        with self._busy() as first:
            yield
            with self._busy():
                first()
                yield

    @contextmanager
    def _busy(self) -> Iterator[Callable[[], None]]:
        """Have one process of the worker wait, until the function is called or the block ends."""
        if self.worker.pool == "solo":
            yield lambda: None
            return
        stage = self.stage("")
        stage.send(body=f"{BODIES}:runs_on", said={"seconds": 0})
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                stage.file.touch()
                stage.wait(stage.settled, "the end of a task that did nothing", up_to=_PATIENCE)

        try:
            self.begun(stage)
            yield release
        finally:
            with suppress(OverError):
                release()
            stage.disconnect()

    # What a collector measures.

    def gauged(self) -> Iterator[Gauged]:
        """The gauge with full queues, with empty ones and without a broker."""
        if not self.plan.gauge:
            return
        if self.plan.collector:  # a task that is not acknowledged ends some workers with their broker
            self.worker.ask(do="set", task=self.plan.collector, options={"acks_late": False})
        with closing(_Queues(self)) as queues, self._busy() as first:
            messages, of_first_priority = queues.fill()
            filled = self._run_and_look(FILLED, messages, of_first_priority)
            yield filled
            if filled.ended.startswith("had not"):  # it has its process still
                return
            last = _LastRun(self)
            if self.worker.pool != "solo":
                last.hold()
            first()
            queues.drain()
            self._differ()
            yield self._run_and_look(DRAINED, messages)
            self._differ()
            last.hold()
            queues.close()
            self.sandbox.stop_broker()
            last.start()
            yield self._look_at_gauge(BROKER_GONE, messages, time.monotonic(), last.ended)

    def _differ(self) -> None:
        if self.plan.freshness:
            time.sleep(_RESOLUTION)

    def _run_and_look(
        self, step: str, messages: Mapping[str, int], first: Mapping[str, int] | None = None
    ) -> Gauged:
        began, ended = time.monotonic(), ""
        if self.plan.collector:
            stage = self.stage(self.plan.collector)
            try:
                stage.send(without=(HEADER,))
                stage.wait(lambda: stage.sent("task_postrun") or stage.gone, "end", up_to=self.plan.within)
            except OverError:
                ended = f"had not come back after {self.plan.within:g} s"
            finally:
                stage.disconnect()
            ended = ended or _how_it_ended(stage)
        return self._look_at_gauge(step, messages, began, lambda: ended, first)

    def _look_at_gauge(
        self,
        step: str,
        messages: Mapping[str, int],
        began: float,
        ended: Callable[[], str | None],
        first: Mapping[str, int] | None = None,
    ) -> Gauged:
        """Scrape until the gauge is right, or the collector has ended and it still is not."""
        plan = self.plan
        over = time.monotonic() + plan.within
        told_at: float | None = None
        failures = 0
        while True:
            shown, why = self._try(plan.within)
            failures = failures + 1 if why else 0
            told = next(iter(shown.get(plan.freshness, ())), None)
            how = ended()
            gauged = Gauged(
                step,
                messages,
                tuple(shown.get(plan.gauge, ())),
                first or {},
                why,
                mask(f"had not come back after {plan.within:g} s" if how is None else how),
                self._set_in(began),
                None if told is None else told.value,
            )
            now = time.monotonic()
            if how is not None and told_at is None:
                told_at = now
            settled = bool(plan.collector) and told_at is not None and now > told_at + _SETTLE
            # Without a broker it is right to fail, though not by chance.
            right = gauged.right(plan) and failures != 1
            if (right and told_at is not None) or settled or now > over:
                return gauged
            time.sleep(_TICK)

    def _set_in(self, began: float) -> tuple[str, ...]:
        changes = self._recorded(began).metrics
        return tuple(dict.fromkeys(each.process for each in changes if each.name == self.plan.gauge))

    # Both.

    def _look(self, enough: Callable[[Shown], bool], up_to: float) -> tuple[Shown, str]:
        """A scrape that shows enough, or the last one within `up_to` seconds; and why there was none."""
        over = time.monotonic() + up_to
        while True:
            shown, why = self._try(self.plan.within)
            if (not why and enough(shown)) or time.monotonic() > over:
                return shown, why
            time.sleep(_TICK)

    def _try(self, within: float) -> tuple[Shown, str]:
        try:
            return self.scrape(within), ""
        except ScrapeError as error:
            return {}, str(error)

    def _recorded(self, since: float) -> Recording:
        return Recording(tuple(each for each in read(self.worker.records).entries if each.at >= since))

    def stage(self, task: str) -> Stage:
        """To send to this task, or to that of drills; for a minute."""
        return Stage(
            self.sandbox,
            replace(self.worker),  # which has its own place in what is recorded
            ENDS["success"],
            task=task,
            args=(),
            kwargs={},
            within=_MINUTE,
            grace=GRACE,
            runs_for=RUNS_FOR,
        )

    def begun(self, stage: Stage) -> None:
        """Wait until the worker has begun the task. Raises SandboxError."""
        try:
            stage.wait(lambda: stage.sent("task_prerun") or stage.gone, "begin", up_to=_PATIENCE)
        except OverError:
            raise SandboxError(f"the worker did not begin {stage.task} within {_PATIENCE:g} s") from None
        if stage.gone:
            raise SandboxError("the worker has ended" + self.sandbox.log(self.worker.name))


class _LastRun:
    """The collector's own code, run in a process of the worker when no message can reach it any more."""

    def __init__(self, trial: _Trial) -> None:
        self._trial = trial
        self._stage: Stage | None = None
        self._done = Path()

    def hold(self) -> None:
        """Have a process of the worker wait for its start."""
        if self._stage is None and self._trial.plan.collector:
            self._stage = stage = self._trial.stage(self._trial.plan.collector)
            self._done = Path(f"{stage.file}.done")
            stage.send(body=f"{BODIES}:runs_its_own_code", said={"done": str(self._done)})
            self._trial.begun(stage)
            stage.disconnect()

    def start(self) -> None:
        if self._stage is not None:
            self._stage.file.touch()

    def ended(self) -> str | None:
        """How it did; None as long as it has not."""
        if self._stage is None:
            return ""
        return self._done.read_text(encoding="utf-8") if self._done.exists() else None


class _Queues:
    """The app's queues in the sandbox's broker, which nobody consumes there."""

    def __init__(self, trial: _Trial) -> None:
        target = trial.sandbox.target
        assert target.app is not None
        self.plan = trial.plan
        self.names = trial.plan.queues or target.app.queues
        said = trial.worker.ask(patience=_PATIENCE, do="declare", queues=list(self.names))
        if said is None or "error" in said:
            why = "the worker does not answer" if said is None else mask(said["error"])
            raise SandboxError(f"the queues cannot be declared: {why}")
        self.connection: Any = Connection(
            target.url, transport_options=dict(target.options), connect_timeout=_PATIENCE
        )

    def fill(self) -> tuple[dict[str, int], dict[str, int]]:
        """Put messages into every queue: how many there are, and how many of the first priority."""
        channel = self.connection.default_channel
        producer = Producer(channel)
        messages: dict[str, int] = {}
        first: dict[str, int] = {}
        steps = self.plan.priorities
        for index, name in enumerate(self.names):
            messages[name] = _MESSAGES + index
            for number in range(messages[name]):
                producer.publish(
                    json.dumps([[], {}, {}]),
                    exchange="",
                    routing_key=name,
                    priority=steps[number % len(steps)],
                    delivery_mode=1,
                    content_type="application/json",
                    content_encoding="utf-8",
                    headers={"task": "celery_health.waits", "id": f"{name}-{number}"},
                )
            first[name] = len(range(0, messages[name], len(steps)))
        over = time.monotonic() + _PATIENCE
        amqp = self.connection.transport.driver_type == "amqp"  # which takes messages without a word
        for name, wanted in messages.items():
            while amqp and channel.queue_declare(queue=name, passive=True).message_count < wanted:
                if time.monotonic() > over:
                    raise SandboxError(f"{name} did not take {wanted} messages within {_PATIENCE:g} s")
                time.sleep(_TICK)
        if self.plan.label:
            return messages, first
        return {"": sum(messages.values())}, {"": sum(first.values())}

    def drain(self) -> None:
        """Take everything out again."""
        for name in self.names:
            self.connection.default_channel.queue_purge(name)

    def close(self) -> None:
        with suppress(Exception):
            self.connection.release()


def _counts(recording: Recording, metric: str) -> tuple[Count, ...]:
    """By how much the metric went up, in which process. A file of a new process begins at zero: no change."""
    by: dict[tuple[str, int], float] = {}
    names = {f"{metric}{more}" for more in _COUNTERS}
    for change in recording.metrics:
        if isinstance(change, MetricChange) and change.name in names and change.by > 0:
            key = change.process, change.pid
            by[key] = by.get(key, 0.0) + change.by
    return tuple(Count(process, pid, amount) for (process, pid), amount in by.items())


def _rise(before: Shown, after: Shown, metric: str) -> float | None:
    """By how much the metric went up over all of its labels; what began anew counts from zero."""
    for more in _COUNTERS:
        name = f"{metric}{more}"
        if name in after:
            was, now = _sum(before.get(name, ())), _sum(after[name])
            return now - was if now >= was else now
    return None


def _sum(samples: Any) -> float:
    return sum(each.value for each in samples if isinstance(each, Sample))


def _how_it_ended(stage: Stage) -> str:
    for signal in ("task_failure", "task_retry"):
        for call in stage.sent(signal):
            if isinstance(call, SignalCall) and about(call, stage.id):
                said = call.arguments.get("exception") or call.arguments.get("reason")
                return f"raised {said}" if signal == "task_failure" else f"retries: {said}"
    return ""
