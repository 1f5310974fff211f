"""Changes of Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

import prometheus_client
import pytest
from celery import Celery, signals
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

from pytest_celery_health.record.in_process import CelerySignals


@pytest.fixture
def failures() -> Iterator[Counter]:
    counter = Counter("shop_failures", "Failed tasks", ["task"])
    yield counter
    REGISTRY.unregister(counter)


def test_a_handlers_metric(app: Celery, celery_signals: CelerySignals, failures: Counter) -> None:
    failures.labels(task="shop.other").inc(3)

    @signals.task_failure.connect(weak=False)
    def count(sender, **_):
        failures.labels(task=sender.name).inc()

    @app.task(name="shop.charge")
    def charge():
        raise ValueError

    recording = celery_signals.run(charge.s(), raises=ValueError)
    (change,) = recording.metrics
    assert (change.name, change.labels, change.before, change.after) == (
        "shop_failures_total",
        {"task": "shop.charge"},
        None,
        1.0,
    )
    again = celery_signals.run(charge.s(), raises=ValueError)
    assert again.expect_metric("shop_failures_total", by=1, task="shop.charge").before == 1.0
    with pytest.raises(AssertionError) as missing:
        again.expect_metric("shop_failures_total", by=2, task="shop.other")
    assert str(missing.value) == (
        "saw 1 change; wanted a change of shop_failures_total with task='shop.other' by +2\n"
        '  shop_failures_total{task="shop.charge"} by +1 to 2'
    )


def test_gauges_and_histograms(app: Celery, celery_signals: CelerySignals) -> None:
    depth, seconds = Gauge("shop_depth", "Depth"), Histogram("shop_seconds", "Seconds", buckets=(1, 2))

    @app.task
    def measure():
        depth.set(7)
        seconds.observe(1.5)

    try:
        recording = celery_signals.run(measure.s())
    finally:
        REGISTRY.unregister(depth)
        REGISTRY.unregister(seconds)
    recording.expect_metric("shop_depth", by=7)
    recording.expect_metric("shop_seconds_bucket", by=1, le="2.0")
    recording.expect_metric("shop_seconds_sum", by=1.5)
    assert len([change for change in recording.metrics if change.name == "shop_seconds_bucket"]) == 2


def test_collectors_that_go_and_look_are_left_alone(app: Celery, celery_signals: CelerySignals) -> None:
    class Asks:
        def describe(self):
            return [GaugeMetricFamily("shop_queue", "x")]

        def collect(self):
            raise AssertionError("asked the broker")

    asks = Asks()
    prometheus_client.REGISTRY.register(asks)
    broken = Gauge("shop_broken", "x")
    broken.set_function(lambda: 1 / 0)

    @app.task
    def pack():
        pass

    try:
        assert celery_signals.run(pack.s()).metrics == ()
    finally:
        REGISTRY.unregister(asks)
        REGISTRY.unregister(broken)


def test_a_number_that_is_none_does_not_change(app: Celery, celery_signals: CelerySignals) -> None:
    depth = Gauge("shop_depth", "Depth")

    @app.task
    def measure(value):
        depth.set(value)

    try:
        assert len(celery_signals.run(measure.s(float("nan"))).metrics) == 1
        assert celery_signals.run(measure.s(float("nan"))).metrics == ()
        assert len(celery_signals.run(measure.s(1)).metrics) == 1
    finally:
        REGISTRY.unregister(depth)
