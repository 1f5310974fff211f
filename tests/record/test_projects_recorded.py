"""Tests as users write them: the guides' handlers are red for the right reason, the corrected ones green."""

from __future__ import annotations

import re

import pytest

from tests.record.conftest import GUIDE, REPO, SHOP, Project

README_TEST = """
from shop.tasks import CardDeclined, process_payment

SLACK = "https://hooks.slack.com/services/XXX/YYY/ZZZ"
charge = process_payment

def test_failure_reaches_slack(celery_signals, requests_mock, monkeypatch):
    monkeypatch.setenv("SLACK_WEBHOOK_URL", SLACK)
    monkeypatch.setenv("PAGERDUTY_ROUTING_KEY", "a-routing-key")
    requests_mock.post(SLACK)
    requests_mock.post("https://events.pagerduty.com/v2/enqueue", status_code=202)
    recording = celery_signals.run(charge.s("o1", "declined"), raises=CardDeclined)
    assert "declined" in recording.requests[0].text
    recording.expect_request("pagerduty.com", containing="shop.tasks.process_payment", count=1)
    recording.expect_log(level="ERROR", logger="shop", containing="CardDeclined", count=1)
    recording.expect_signal("task_failure", count=1)
    assert recording.requests[0].status == 200
"""

GUIDE_TEST = """
import pytest
from shop.tasks import CardDeclined, import_stock, process_payment

SLACK = "https://hooks.slack.com/services/XXX/YYY/ZZZ"

def test_failure_is_logged(celery_signals, requests_mock):
    requests_mock.post(SLACK)
    celery_signals.run(process_payment.s("o1", "declined"), raises=CardDeclined)

@pytest.fixture
def recorded(celery_signals, requests_mock):
    requests_mock.post(SLACK)
    return celery_signals.run(
        process_payment.s("o1", "declined"), raises=CardDeclined, handler_errors="record"
    )

def test_slack(recorded):
    assert "declined" in recorded.requests[0].text

def test_pagerduty(recorded):
    recorded.expect_request("pagerduty.com")

def test_third_retry_is_alerted(celery_signals, requests_mock):
    requests_mock.post(SLACK)
    requests_mock.get("https://stock/", status_code=500)
    recording = celery_signals.run(
        import_stock.s("https://stock/"), raises=Exception, handler_errors="record"
    )
    assert [call.signal for call in recording.signals].count("task_retry") == 3
    recording.expect_request("hooks.slack.com", containing="retries")

def test_unanswered(celery_signals):
    celery_signals.run(process_payment.s("o1", "declined"), raises=CardDeclined)
"""


SMALL = """
import requests
from celery import Celery, signals

app = Celery("shop", broker="redis://nobody.invalid/0", backend="redis://nobody.invalid/1")

class CardDeclined(Exception):
    pass

@app.task
def charge(card):
    raise CardDeclined(f"the card is {card}")

def post(text):
    requests.post("https://hooks.slack.com/services/T0/B0/X", json={"text": text}, timeout=1)

@signals.task_failure.connect
def alert_on_failure(sender, exception, **_):
    post(f"{sender.name} failed: {exception}")

@signals.task_retry.connect
def alert_on_retry(sender, request, **_):
    post(f"{sender.name} retries for the {request.retries + 1}. time")
"""


def test_the_examples_of_the_page_are_green(project: Project) -> None:
    page = (REPO / "docs" / "recordings.md").read_text()
    project.pytester.mkpydir("shop")
    (project.pytester.path / "shop" / "tasks.py").write_text(SMALL)
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    project.run("\n".join(blocks)).assert_outcomes(passed=2)


def test_the_corrected_shop_is_green(project: Project) -> None:
    project.copy(SHOP)
    project.run(README_TEST).assert_outcomes(passed=1)


@pytest.mark.slow
def test_the_guides_handlers_are_red_for_the_right_reason(project: Project) -> None:
    project.copy(GUIDE)
    result = project.run(GUIDE_TEST)
    result.assert_outcomes(passed=1, failed=4)
    told = result.stdout.str()
    assert (
        "HandlerError: shop.signals:task_failed raised KeyError: \"Attempt to overwrite 'args' in LogRecord\""
        " on task_failure (shop/signals.py:23); Celery would swallow it"
    ) in told
    assert "KeyError: \"Attempt to overwrite 'args' in LogRecord\"\n\nThe above exception" in told
    assert "AssertionError: saw no PagerDuty" not in told
    assert "AssertionError: saw 1 request; wanted a request to pagerduty.com" in told
    assert "  POST https://hooks.slack.com/services/… (200) " in told
    assert "request to hooks.slack.com containing 'retries'" in told
    assert (
        "shop.signals:slack_on_failure raised ConnectionError: refused: hooks.slack.com:443 is not on this"
        " machine, and nothing in this test answers for it on task_failure"
    ) in told


@pytest.mark.slow
@pytest.mark.parametrize("args", [("-p", "xdist", "-n", "2"), ("-p", "randomly")], ids=" ".join)
def test_beside_other_plugins(project: Project, args: tuple[str, ...]) -> None:
    project.copy(SHOP)
    project.run(README_TEST, *args).assert_outcomes(passed=1)


def test_a_shared_task_without_an_app_says_what_is_missing(project: Project) -> None:
    project.pytester.makepyprojecttoml("[tool.pytest.ini_options]")
    result = project.run(
        "from celery import shared_task\n"
        "@shared_task(name='lost.task')\n"
        "def lost(): pass\n"
        "def test_lost(celery_signals): celery_signals.run(lost.s())\n"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E   LookupError: lost.task has no app: import yours in the test,"
            " or name it in [[]tool.celery-health]"
        ]
    )
