"""Changes of the metrics in Prometheus' default registry, where prometheus_client is imported."""

from __future__ import annotations

import sys
from typing import Any

from pytest_celery_health.record.recording import MetricChange
from pytest_celery_health.record.tap import Tap

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Metrics:
    """What changed since it was made, or since it was last asked."""

    def __init__(self) -> None:
        self._before = _samples()

    def changes(self, tap: Tap) -> list[MetricChange]:
        before, self._before = self._before, _samples()
        return [
            MetricChange(name, dict(labels), before.get((name, labels)), value, **tap.where())
            for (name, labels), value in self._before.items()
            if not _same(value, before.get((name, labels), 0.0 if name.endswith(_CUMULATIVE) else None))
        ]


_CUMULATIVE = ("_total", "_count", "_sum", "_bucket")


def _same(value: float, before: float | None) -> bool:
    return value == before or (before is not None and value != value and before != before)  # NaN stays NaN


def _samples() -> Samples:
    """Every sample that code sets. Collectors that go and look are left alone: they may ask a broker."""
    client: Any = sys.modules.get("prometheus_client")
    if client is None:
        return {}
    base = client.metrics.MetricWrapperBase
    found: Samples = {}
    for collector in list(getattr(client.REGISTRY, "_collector_to_names", ())):
        if not isinstance(collector, base):
            continue
        try:
            metrics = list(collector.collect())
        except Exception:  # noqa: BLE001,S112 - a Gauge may call a function of the user's
            continue
        for metric in metrics:
            for sample in metric.samples:
                if not sample.name.endswith("_created"):
                    found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found
