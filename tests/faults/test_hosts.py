"""Faults of HTTP hosts, for each client that is answered; the host itself is never asked."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import httpx
import pytest
import requests

from pytest_celery_health.sandbox import SandboxSpec
from pytest_celery_health.sandbox.faults.here import CeleryFaults, OverdueError
from pytest_celery_health.sandbox.world import World
from tests.faults.witness import refused

URL = "http://hooks.slack.com/services/T1/B2"


def by_urllib(timeout: float | None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(URL, data=b"{}", timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def by_requests(timeout: float | None) -> tuple[int, str]:
    answer = requests.post(URL, json={}, timeout=timeout)
    return answer.status_code, answer.text


def by_httpx(timeout: float | None) -> tuple[int, str]:
    answer = httpx.post(URL, json={}, timeout=timeout)
    return answer.status_code, answer.text


def by_async_httpx(timeout: float | None) -> tuple[int, str]:
    async def ask() -> tuple[int, str]:
        async with httpx.AsyncClient(timeout=timeout) as client:
            answer = await client.post(URL, json={})
            return answer.status_code, answer.text

    return asyncio.run(ask())


Client = Callable[[float | None], tuple[int, str]]
CLIENTS = [by_urllib, by_requests, by_httpx, by_async_httpx]
LOST = (OSError, httpx.HTTPError)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_host_that_refuses(client: Client, world: World) -> None:
    with world.hold("host_refuses", "hooks.slack.com"), pytest.raises(LOST):
        client(5)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_host_that_errs(client: Client, world: World) -> None:
    with world.hold("host_answers", "slack.com", 429, "slow down"):
        assert client(5) == (429, "slow down")
    with world.hold("host_answers", "hooks.slack.com"):
        assert client(5)[0] == 500


@pytest.mark.parametrize("client", CLIENTS)
def test_a_host_that_hangs_is_waited_for_as_long_as_the_client_does(client: Client, world: World) -> None:
    with world.hold("host_hangs", "hooks.slack.com"):
        began = time.perf_counter()
        with pytest.raises(LOST):
            client(0.1)
        assert time.perf_counter() - began >= 0.1


@pytest.mark.parametrize("client", CLIENTS)
def test_a_host_that_is_slow_answers_whom_it_is_not_too_slow_for(client: Client, world: World) -> None:
    with world.hold("host_slow", "hooks.slack.com", latency=0.1, body="at last"):
        began = time.perf_counter()
        assert client(5) == (200, "at last")
        assert time.perf_counter() - began >= 0.1
        with pytest.raises(LOST):
            client(0.05)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_without_a_timeout_comes_back_at_the_deadline(client: Client, faults: CeleryFaults) -> None:
    with pytest.raises(OverdueError) as failed, faults.host_hangs("hooks.slack.com", within=0.2):
        client(None)
    assert "of host_hangs(host='hooks.slack.com'): it hung at tests/faults/test_hosts.py:" in str(
        failed.value
    )


def test_each_host_has_its_own(world: World) -> None:
    with world.hold("host_answers", "hooks.slack.com", 503), world.hold("host_hangs", "pagerduty.com"):
        assert by_requests(5)[0] == 503
        with pytest.raises(requests.ReadTimeout):
            requests.get("http://events.pagerduty.com", timeout=0.05)
        with refused("host_refuses(host='pagerduty.com') cannot be held beside host_hangs"):
            world.enter("host_refuses", "pagerduty.com")


def test_what_is_no_host_or_no_answer_is_told(world: World) -> None:
    for host in ("", "https://hooks.slack.com", "hooks.slack.com:443"):
        with refused("is no host; write a name such as 'hooks.slack.com'"):
            world.enter("host_hangs", host)
    with refused("7 is no answer of x; write a status such as 500"):
        world.enter("host_answers", "x", 7)
    with refused("x cannot answer -1 seconds late"):
        world.enter("host_slow", "x", -1)


def test_nothing_is_started_for_them() -> None:
    with World(SandboxSpec()) as world, world.hold("host_hangs", "hooks.slack.com"):
        assert repr(world) == "<World not started: host_hangs(host='hooks.slack.com')>"
