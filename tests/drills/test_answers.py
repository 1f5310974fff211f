"""Requests of handlers are answered in the worker's own processes, and a handler that hangs is given up."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pytest_celery_health.sandbox.drills.crew import Drills
from tests.drills.conftest import ALERTS

CLIENTS = {
    "requests": "import requests; requests.post(SLACK, json={'text': 'failed'}).raise_for_status()",
    "urllib3": "import urllib3; urllib3.PoolManager().request('POST', SLACK, json={'text': 'failed'})",
    "urllib": "import urllib.request; urllib.request.urlopen(SLACK, data=b'failed')",
    "http.client": (
        "import http.client; c = http.client.HTTPSConnection('hooks.slack.com');"
        " c.request('POST', '/services/T1', b'failed'); c.getresponse().read()"
    ),
    "httpx": "import httpx; httpx.post(SLACK, json={'text': 'failed'}).raise_for_status()",
}
EVERY = "\n".join(
    f"""
@signals.task_failure.connect(weak=False, dispatch_uid="{name}")
def tell_by_{name.replace(".", "_")}(**_):
    {code}
"""
    for name, code in CLIENTS.items()
)


@pytest.mark.parametrize("name", ["raises", "worker_lost"])
def test_every_client_is_answered_200_and_nothing_leaves(drills: Callable[..., Drills], name: str) -> None:
    found = drills(ALERTS + EVERY)(name)
    assert not found.errors
    requests = found.requests_to("hooks.slack.com")
    assert len(requests) == len(CLIENTS) + 1
    assert {request.status for request in requests} == {200}
    assert {request.process for request in requests} == {"child" if name == "raises" else "main"}
    assert all("failed" in request.text or "exited" in request.text for request in requests)


def test_a_server_may_answer_otherwise(alerting: Drills) -> None:
    found = alerting("raises", answers={"slack.com": 500})
    assert found.expect_request("hooks.slack.com").status == 500
    assert "500 Server Error" in found.errors[0].error
    assert not alerting("raises").errors  # and the next drill is as if there had been none


def test_a_server_may_refuse(alerting: Drills) -> None:
    found = alerting("raises", answers={"*": "refuses"})
    assert found.expect_request("hooks.slack.com").status is None
    assert "ConnectionError" in found.errors[0].error


def test_a_server_that_hangs_costs_a_handler_its_timeout(alerting: Drills) -> None:
    found = alerting("raises", answers={"hooks.slack.com": "hangs"})
    (error,) = found.errors
    assert "ReadTimeout" in error.error
    assert 0.3 <= error.duration < 3.0
    assert not found.still_running


@pytest.mark.slow
@pytest.mark.parametrize(("name", "process"), [("raises", "child"), ("worker_lost", "main")])
def test_a_handler_that_hangs_is_named_and_given_up(
    drills: Callable[..., Drills], name: str, process: str
) -> None:
    hanging = drills(ALERTS + "\nBOUND = {}\n")
    began = time.monotonic()
    found = hanging(name, answers={"hooks.slack.com": "hangs"}, within=1.0)
    assert time.monotonic() - began < 5.0
    (running,) = found.still_running
    assert running.handler == "tiny:tell_slack"
    assert (running.signal, running.process) == ("task_failure", process)
    assert "tiny:tell_slack on task_failure was still running" in repr(running)
    assert not hanging(name).still_running


def test_an_answer_that_is_none_is_refused(tiny: Drills) -> None:
    with pytest.raises(
        ValueError, match=r"'never' is no answer of hooks\.slack\.com; write a status such as 500"
    ):
        tiny("raises", answers={"hooks.slack.com": "never"})


def test_metrics_that_a_handler_changes_are_told_by_its_own_process(drills: Callable[..., Drills]) -> None:
    counting = drills(
        """
        from celery import signals
        from prometheus_client import Counter

        FAILED = Counter("failed_tasks", "Failed tasks", ["task"])

        @signals.task_failure.connect(weak=False)
        def count(sender, **_):
            FAILED.labels(task=sender.name).inc()
        """
    )
    assert (
        counting("raises").expect_metric("failed_tasks_total", by=1, task="celery_health.drill").process
        == "child"
    )
    assert counting("worker_lost").expect_metric("failed_tasks_total", by=1).process == "main"
