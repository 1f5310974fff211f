"""Rows of `metrics` in a run: by contract alone, on the shop, its twin and others."""

from __future__ import annotations

import sys

import pytest

from tests.plugin.conftest import REPO, Project, run

ROW = """
[tool.celery-health.check.depths]
use = "metrics"
scrape = "worker"
gauge = "queue_messages"
collector = "shop.measure"
pool = "solo"
"""
APP = """
from celery import Celery
from prometheus_client import Gauge

app = Celery("shop")
MESSAGES = Gauge("queue_messages", "Ready messages", ["queue"])

@app.task(name="shop.measure")
def measure():
    with app.connection_for_read() as connection:
        MESSAGES.labels("celery").set(connection.default_channel.client.llen("celery"))
"""


@pytest.mark.slow
def test_the_guides_gauge_is_red_for_its_reason() -> None:
    done = run(REPO / "tests" / "projects" / "guide", "pyproject.toml::metrics[sandbox]")
    assert done.returncode == 1, done.stdout
    for seen in (
        "celery_queue_length shows 10 for default after it was drained; wanted 0"
        " (shop.tasks.collect_queue_metrics did not set it)",
        "celery_queue_length still shows 10 for default with the broker gone; wanted NaN, nothing",
    ):
        assert seen in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("root", "rows"),
    [
        ("examples/shop", ["metrics"]),
        pytest.param("tests/projects/metrics_http", ["metrics"], marks=pytest.mark.slow),
        pytest.param("tests/projects/metrics_live", ["metrics"], marks=pytest.mark.slow),
        pytest.param("tests/projects/metrics_push", ["metrics"], marks=pytest.mark.slow),
        pytest.param(
            "tests/projects/metrics_wsgi", ["metrics", "metrics-on-the-worker"], marks=pytest.mark.slow
        ),
    ],
)
def test_correct_metrics_are_green(root: str, rows: list[str]) -> None:
    done = run(REPO / root, *(f"pyproject.toml::{row}[sandbox]" for row in rows))
    assert done.returncode == 0, done.stdout
    assert f"{len(rows)} healthy" in done.stdout
    assert "WARNED" not in done.stdout


@pytest.mark.slow
def test_a_row_prints_its_table(project: Project) -> None:
    project.pytester.makepyfile(shop=APP)
    project.contract(ROW)
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "depths:",
            "metric * when * set in  scrape shows  wanted",
            'queue_messages{queue="celery"}  10 messages  main    3             10',
            'queue_messages{queue="celery"}  drained      main    0             0',
            'queue_messages{queue="celery"}  broker gone  -       0             no number',
            "FAILED pyproject.toml::depths[[]sandbox[]] - queue_messages shows 3 for celery with 10 messages"
            " in it; wanted 10 (3 messages of them have the priority 0) (and 1 more)",
        ]
    )


def test_without_the_library_that_reads_scrapes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)  # as if it were not installed
    project.pytester.makepyfile(shop="from celery import Celery\napp = Celery('shop')\n")
    project.contract(ROW.replace('collector = "shop.measure"\n', ""))
    result = project.run()
    assert result.ret == 6
    result.stdout.fnmatch_lines(
        [
            "ERROR *depths* - cannot tell: metrics: prometheus_client, which reads scrapes, is not installed"
            " here; pip install prometheus-client"
        ]
    )
