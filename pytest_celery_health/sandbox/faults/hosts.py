"""Faults of any HTTP host: its clients in this process are answered in its stead, and nothing is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_celery_health.hosts import same_host
from pytest_celery_health.sandbox.faults.base import HOST, Fault, FaultError

if TYPE_CHECKING:
    from pytest_celery_health.record.answers import Answer
    from pytest_celery_health.sandbox.world import World


@contextmanager
def _answering(host: str, answer: int | tuple[int, str] | str, latency: float = 0.0) -> Iterator[None]:
    from pytest_celery_health.record import answers

    if not host or "/" in host or ":" in host:
        raise FaultError(f"{host!r} is no host; write a name such as 'hooks.slack.com'")
    try:
        answers.check({host: answer if isinstance(answer, (str, int)) else answer[0]})
    except ValueError as error:
        raise FaultError(str(error)) from None
    if latency < 0:
        raise FaultError(f"{host} cannot answer {latency} seconds late")

    def script(asked: str, _: int | None) -> Answer | None:
        return said if same_host(asked, host) else None

    said: Answer = answers.Late(latency, answer) if latency else answer
    ended = threading.Event()

    def wait(asked: str, seconds: float | None) -> None:
        if same_host(asked, host):
            ended.wait(seconds)

    try:
        with answers.answering(script), answers.waiting(wait, also_async=True):
            yield
    finally:
        ended.set()


@contextmanager
def _refuses(_: World, host: str) -> Iterator[None]:
    with _answering(host, "refuses"):
        yield


@contextmanager
def _hangs(_: World, host: str) -> Iterator[None]:
    with _answering(host, "hangs"):
        yield


@contextmanager
def _answers(_: World, host: str, status: int = 500, body: str = "") -> Iterator[None]:
    with _answering(host, (status, body)):
        yield


@contextmanager
def _slow(_: World, host: str, latency: float = 1.0, status: int = 200, body: str = "") -> Iterator[None]:
    with _answering(host, (status, body), latency):
        yield


FAULTS: tuple[Fault, ...] = (
    Fault("host_refuses", "HTTP connections to `host` are refused.", _refuses, (HOST,), (HOST,)),
    Fault("host_hangs", "`host` takes HTTP requests and never answers.", _hangs, (HOST,), (HOST,)),
    Fault(
        "host_answers",
        "`host` answers every HTTP request with `status` (500) and `body` (none).",
        _answers,
        (HOST,),
        (HOST,),
    ),
    Fault(
        "host_slow",
        "`host` answers `latency` seconds late (1), with `status` (200) and `body`.",
        _slow,
        (HOST,),
        (HOST,),
    ),
)
