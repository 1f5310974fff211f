"""The guide's handlers and those of examples/shop, in a real worker at the ends that matter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_celery_health.sandbox.drills.crew import Drills
from tests.drills.conftest import REPO

pytestmark = pytest.mark.slow

DEATHS = ["raises", "soft_time_limit", "hard_time_limit", "worker_lost", "memory_error"]


@pytest.fixture
def guide(drills: Callable[..., Drills]) -> Drills:
    return drills(root=REPO / "tests" / "projects" / "guide")


@pytest.fixture
def shop(drills: Callable[..., Drills]) -> Drills:
    return drills(
        root=REPO / "examples" / "shop",
        SLACK_WEBHOOK_URL="https://hooks.slack.com/services/T1/B2/s3cr3t",
        PAGERDUTY_ROUTING_KEY="key",
    )


@pytest.mark.parametrize("end", ["raises", "hard_time_limit", "worker_lost"])
def test_the_guide_never_logs_a_failure(guide: Drills, end: str) -> None:
    found = guide(end)
    broken = found.errors[0]
    assert broken.handler == "shop.signals:task_failed"
    assert "KeyError: \"Attempt to overwrite 'args' in LogRecord\"" in broken.error
    assert found.requests_to("hooks.slack.com")


def test_the_guide_hears_nothing_of_a_task_that_nobody_knows(guide: Drills) -> None:
    found = guide("unregistered")
    assert not found.handlers
    assert not found.requests


def test_the_guide_pages_nobody_for_its_critical_task(guide: Drills) -> None:
    assert not guide("raises", task="shop.tasks.process_payment").requests_to("events.pagerduty.com")


def test_the_guide_never_alerts_a_retry(guide: Drills) -> None:
    found = guide("retries_exhausted")
    assert len(found.requests_to("hooks.slack.com")) == 1  # of the failure, none of the three retries


@pytest.mark.parametrize("process", [pytest.param("main", marks=pytest.mark.slow), "child"])
def test_the_guides_alert_hangs_with_its_server(guide: Drills, process: str) -> None:
    end = "worker_lost" if process == "main" else "raises"
    found = guide(end, answers={"hooks.slack.com": "hangs"}, within=1.5)
    (running,) = found.still_running
    assert (running.handler, running.process) == ("shop.signals:slack_on_failure", process)


@pytest.mark.parametrize("end", [*DEATHS, "unregistered", "missing_header"])
def test_the_shop_tells_slack_of_every_death_once(shop: Drills, end: str) -> None:
    found = shop(end)
    assert not found.errors
    found.expect_request("hooks.slack.com", count=1)


def test_the_shop_pages_for_its_critical_task(shop: Drills) -> None:
    found = shop("worker_lost", task="shop.tasks.process_payment")
    found.expect_request("events.pagerduty.com", containing="process_payment", count=1)


@pytest.mark.parametrize("answer", [500, "refuses", "hangs"])
def test_the_shop_logs_an_alert_that_was_lost(shop: Drills, answer: int | str) -> None:
    found = shop("raises", answers={"hooks.slack.com": answer})
    assert not found.errors
    assert not found.still_running
    record = found.expect_log(level="error", containing="Slack alert lost")
    assert "s3cr3t" not in record.message


@pytest.mark.slow
def test_the_shop_survives_a_cold_shutdown(shop: Drills) -> None:
    assert not shop("cold_shutdown", runs_for=30).errors
