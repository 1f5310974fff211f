"""What is read in the answers of health checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import pytest

from pytest_celery_health.project.child.verdicts import body_of, figures, meaning


@dataclass
class Report:
    ok: bool
    note: str = "fine"


class Response:
    def __init__(self, status: int, body: bytes = b"") -> None:
        self.status_code = status
        self.content = body


class Opaque:
    pass


ANSWERS: list[tuple[Any, tuple[str, str]]] = [
    (True, ("healthy", "verdict")),
    (False, ("unhealthy", "verdict")),
    (None, ("healthy", "nothing")),
    ((True, "fine"), ("healthy", "verdict")),
    ((False, "no worker"), ("unhealthy", "verdict")),
    ("OK", ("healthy", "verdict")),
    ("error: no worker", ("unhealthy", "verdict")),
    ("purple", ("unclear", "verdict")),
    ({"healthy": True}, ("healthy", "verdict")),
    ('{"healthy": true}', ("healthy", "verdict")),
    (b'{"status": "error", "error": "no worker"}', ("unhealthy", "verdict")),
    ('{"default": {"length": null}}', ("unhealthy", "data")),
    ("{purple}", ("unclear", "verdict")),
    ("true", ("healthy", "verdict")),
    ({"Healthy": False, "error": "no worker"}, ("unhealthy", "verdict")),
    ({"status": "pass"}, ("healthy", "verdict")),
    ({"status": "degraded"}, ("unhealthy", "verdict")),
    ({"status": 503}, ("unhealthy", "verdict")),
    ({"status": HTTPStatus.OK}, ("healthy", "verdict")),
    (Report(ok=False), ("unhealthy", "verdict")),
    (Response(200, b"up"), ("healthy", "verdict")),
    (Response(503, b'{"healthy": true}'), ("unhealthy", "verdict")),
    (Response(200, b'{"healthy": false}'), ("healthy", "verdict")),  # its status tells
    (Response(200, b'{"workers": {"w1": "ok"}}'), ("healthy", "verdict")),
    (({"status": "ok"}, 200), ("healthy", "verdict")),
    (("down", 503), ("unhealthy", "verdict")),
    ([], ("unhealthy", "data")),
    (["w1"], ("healthy", "data")),
    ([None], ("unhealthy", "data")),
    ({}, ("unhealthy", "data")),
    ({"default": {"length": 0}, "mail": {"length": 3}}, ("healthy", "data")),
    ({"default": {"length": 0}, "mail": {"error": "gone"}}, ("unhealthy", "data")),
    ({"active": None}, ("unhealthy", "data")),
    ({"default": math.nan}, ("unhealthy", "data")),
    ({"default": {"length": None}}, ("unhealthy", "data")),
    ({"w1@host": None}, ("unhealthy", "data")),
    ({"stats": {"w1@host": {"broker": {"userid": None}}}}, ("healthy", "data")),
    ({"w1@host": [{"time_start": None}]}, ("healthy", "data")),
    ({"w1@host": {"error": "unknown command"}}, ("unhealthy", "data")),
    ({"default": 0, "error": None}, ("healthy", "data")),
    (3, ("healthy", "data")),
    (Opaque(), ("unclear", "data")),
]


@pytest.mark.parametrize(("answer", "wanted"), ANSWERS, ids=[repr(answer)[:40] for answer, _ in ANSWERS])
def test_an_answer(answer: Any, wanted: tuple[str, str]) -> None:
    found = meaning(answer)
    assert (found.verdict, found.kind) == wanted


def test_what_it_says_in_short() -> None:
    assert meaning({"healthy": False, "error": "no worker"}).said == "no worker"
    assert meaning({"healthy": True, "workers": 2}).said == "healthy: True, workers: 2"
    assert meaning(Response(503, b'{"error":\n "no worker"}')).said == 'HTTP 503 {"error": "no worker"}'
    assert meaning([]).said == "found nothing"
    assert meaning({"w1": [], "w2": []}).said == "found nothing in w1, w2"
    assert meaning(["a", "b"]).said == "found 2"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"active": None, "reserved": None}, "active is None"),
        ({"queues": {"mail": {"length": None}}}, "queues.mail.length is None"),
        ({"queues": [{"name": "mail", "messages": math.nan}]}, "queues[0].messages is NaN"),
        ({"default": 0, "mail": {"error": "gone"}}, "mail.error: gone"),
        ({"stats": {"w1@host": None}}, "stats.w1@host is None"),
        ({"mail": OSError("gone")}, "mail: OSError: gone"),
        ([1, None], "found 2: [1] is None"),
    ],
)
def test_what_of_figures_is_unhealthy(answer: Any, said: str) -> None:
    found = meaning(answer)
    assert (found.verdict, found.said) == ("unhealthy", said)


@pytest.mark.parametrize(
    ("answer", "status", "json"),
    [
        (Response(200, b'{"healthy": false}'), 200, "unhealthy"),
        (Response(503, b'{"healthy": true}'), 503, "healthy"),
        (({"status": "purple"}, 200), 200, "unclear"),
        (Response(200, b'{"workers": null}'), 200, ""),
        (Response(200, b"up"), 200, ""),
        ({"healthy": False}, 0, ""),
    ],
)
def test_what_a_response_says_beside_its_status(answer: Any, status: int, json: str) -> None:
    found = meaning(answer)
    assert (found.status, found.json) == (status, json)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ({"mail": 7, "orders": 1}, [7]),
        ({"mail": {"length": 7, "consumers": 2, "full": True}}, [7, 2]),
        ({"queues": [{"name": "mail", "messages": 7}, {"name": "orders", "messages": 1}]}, [7]),
        ([("mail", 7), ("orders", 1)], [7]),
        (7, [7]),
        (True, []),
        ({"orders": 1}, []),
        ("mail", []),
    ],
)
def test_figures_of_a_queue(answer: Any, wanted: list[float]) -> None:
    assert figures(answer, "mail") == wanted


def test_figures_of_a_response() -> None:
    assert figures(body_of(Response(200, b'{"mail": 7}')), "mail") == [7]
    assert body_of(Response(200, b"no JSON")) == "no JSON"
    assert body_of(({"mail": 7}, 200)) == {"mail": 7}
