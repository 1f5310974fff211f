"""Rows of `survive` in a run: by contract alone, on the shop, its twin and others."""

from __future__ import annotations

import re
import time

import pytest

from tests.plugin.conftest import REPO, Project, run

ROW = '[tool.celery-health.check.alerts]\nuse = "survive"\n'
APP = """
from celery import Celery, signals
app = Celery("shop")

@app.task(name="shop.charge")
def charge(): ...

@signals.task_failure.connect
def alert(sender, exception, **kwargs):
    {body}
"""


def test_the_guides_handlers_are_red_each_for_its_reason() -> None:
    done = run(REPO / "tests" / "projects" / "guide", "pyproject.toml::handlers-survive[sandbox]")
    assert done.returncode == 1, done.stdout
    place = r" \(shop/signals\.py:\d+\)"
    for mistake in (
        r"task_failed raised KeyError: \"Attempt to overwrite 'args' in LogRecord\" for task_failure" + place,
        r"slack_on_failure raised RuntimeError: .* with an exception whose __str__ raises" + place,
        r"slack_on_failure posts without a timeout to hooks\.slack\.com for task_failure",
        r"slack_on_failure loses its alert without a word .* answers 404, 429 or 500" + place,
        r"slack_on_retry asks hooks\.slack\.com for task_retry only from retries 3 on" + place,
    ):
        assert re.search(rf"^{mistake}", done.stdout, re.MULTILINE), done.stdout
    warning = (
        r"pagerduty_on_failure does nothing for any of the app's 7 tasks: shop/signals\.py:\d+ never runs;"
    )
    assert re.search(
        rf"^WARNED pyproject\.toml::handlers-survive\[sandbox\] - .*{warning}", done.stdout, re.M
    )
    assert "XXX/YYY" not in done.stdout
    assert "(and 4 more)" in done.stdout


@pytest.mark.parametrize(
    "root",
    [
        "examples/shop",
        *(
            pytest.param(f"tests/projects/handlers_{name}", marks=pytest.mark.slow)
            for name in ("sdk", "httphandler", "httpx")
        ),
    ],
)
def test_correct_handlers_are_green(root: str) -> None:
    """Within seconds, whatever their servers do."""
    began = time.monotonic()
    rows = [f"pyproject.toml::{row}[sandbox]" for row in ("handlers", "handlers-survive")]
    done = run(REPO / root, *rows)
    assert time.monotonic() - began < 30
    assert done.returncode == 0, done.stdout
    assert "2 checks: 2 healthy" in done.stdout
    assert "WARNED" not in done.stdout


def test_a_row_prints_its_table_and_starts_nothing(project: Project) -> None:
    project.pytester.makepyfile(shop=APP.format(body="raise ValueError(sender.name)"))
    project.contract(ROW)
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "alerts:",
            "signal        handler     calls  does          wrong  where",
            "task_failure  shop:alert  *      nothing seen  error  shop.py:*",
            "1 check: 1 unhealthy · 0 looks, 0 B",
            "FAILED pyproject.toml::alerts[[]sandbox[]] - alert raised ValueError: shop.charge"
            " for task_failure (shop.py:*); wanted no error (Celery swallows it)",
        ]
    )


def test_a_warning_is_told_and_fails_nothing(project: Project) -> None:
    project.pytester.makepyfile(shop=APP.format(body='if sender.name == "charge":\n        print(exception)'))
    project.contract(ROW)
    result = project.run()
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "WARNED pyproject.toml::alerts[[]sandbox[]] - alert does nothing for the app's task:"
            " shop.py:10 never runs; wanted an effect for one",
            "1 check: 1 healthy *",
        ]
    )


@pytest.mark.slow
def test_a_handler_that_hangs_hangs_no_run(project: Project) -> None:
    project.pytester.makepyfile(shop=APP.format(body="while True: pass"))
    project.contract(ROW + 'within = "300ms"\n')
    began = time.monotonic()
    result = project.run()
    assert time.monotonic() - began < 15
    result.stdout.fnmatch_lines(["FAILED *alerts* - alert did not end for task_failure (shop.py:*); it was*"])


def test_rows_of_two_budgets_share_the_calls(project: Project) -> None:
    """Each is judged by its own."""
    project.pytester.makepyfile(
        shop=APP.format(
            body="import requests, logging\n"
            "    try:\n"
            '        requests.post("http://alerts.example/", timeout=3).raise_for_status()\n'
            "    except requests.RequestException:\n"
            '        logging.error("lost")'
        )
    )
    project.contract(ROW, '[tool.celery-health.check.slow]\nuse = "survive"\nwithin = "5s"\n')
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "2 checks: 1 healthy, 1 unhealthy · 0 looks, *",
            "FAILED *alerts* takes 3 s for task_failure when alerts.example hangs (shop.py:*); "
            "wanted an end within 2 s",
        ]
    )
