"""Rows of `alerts` in a run: by contract alone."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import REPO, Project, run

APP = """
from celery import Celery, signals
from pytest_celery_health.sandbox.drills.ends import End
app = Celery("shop")

OUT_OF_STOCK = End(
    "out_of_stock", "The task raises.", {}, "shop:out_of_stock", until=("task_failure",)
)

def out_of_stock(call):
    raise ValueError("out of stock")

@signals.task_failure.connect
def alert(sender, exception, **kwargs):
    import requests
    requests.post("https://hooks.slack.com/services/T0/B0/s3cr3t", json={"text": str(exception)}, timeout=2)
"""
ROW = """
[tool.celery-health.check.alerts]
use = "alerts"
ends = ["expired"]
must_reach."hooks.slack.com" = ["raises", "shop:OUT_OF_STOCK", "unregistered"]
"""


def test_a_death_that_nobody_is_told_of(project: Project) -> None:
    project.pytester.makepyfile(shop=APP)
    project.contract(ROW)
    result, said = project.with_junit()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "alerts:",
            "end                hooks.slack.com  log  metric",
            "raises             1                *    -",
            "unregistered       MISSING          1    -",
            "expired            -                -    -",
            "shop:OUT_OF_STOCK  1                *    -",
            "WARNED pyproject.toml::alerts[[]sandbox[]] - expired is heard of by nobody",
            "FAILED pyproject.toml::alerts[[]sandbox[]] - unregistered never reaches hooks.slack.com,"
            " only log; wanted an alert to hooks.slack.com",
        ]
    )
    assert "s3cr3t" not in result.stdout.str()
    assert said["unregistered.reaches"] == "log"
    assert said["raises.reaches"].startswith("hooks.slack.com")
    assert said["expired.reaches"] == ""


def test_mistakes_in_the_contract_are_told_before_anything_starts(project: Project) -> None:
    project.contract(
        '[tool.celery-health.check.a]\nuse = "alerts"\nmust_reach.log = ["worker_lots"]\n',
        '[tool.celery-health.check.b]\nuse = "alerts"\n',
    )
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        [
            '*must_reach has "worker_lots", which is no end of a drill; did you mean worker_lost?',
            "*must_reach is missing; wanted a table of a list of text",
        ]
    )


@pytest.mark.slow
def test_the_guide_is_red_for_what_it_never_hears_of() -> None:
    rows = [f"pyproject.toml::{row}[sandbox]" for row in ("alerts", "pages")]
    done = run(REPO / "tests" / "projects" / "guide", *rows)
    assert done.returncode == 1, done.stdout
    for line in (
        "unregistered is heard of by nobody; wanted an alert to hooks.slack.com",
        "missing_header is heard of by nobody",
        "raises never reaches log: celery does not propagate, and no handler is there;",
        "raises never reaches events.pagerduty.com, only hooks.slack.com;",
    ):
        assert line in done.stdout
    assert "XXX/YYY" not in done.stdout


@pytest.mark.slow
def test_the_shop_is_green() -> None:
    rows = [f"pyproject.toml::{row}[sandbox]" for row in ("alerts", "pages")]
    done = run(REPO / "examples" / "shop", *rows)
    assert done.returncode == 0, done.stdout
    assert "2 checks: 2 healthy" in done.stdout
