"""Each way to answer is understood, and each mistake is seen, in real processes and a real broker."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from pytest_celery_health import ProbeTells, Verdict
from tests.probes.conftest import Lab, bad

SOURCE = Path(__file__).with_name("checks_of_all_kinds.py")
AWAY = "broker_refuses"


def calls(name: str, **fields: Any) -> ProbeTells:
    return ProbeTells(**{"call": f"shop:{name}", "unhealthy_when": (AWAY,), "answers_within": 20, **fields})


def requests(kind: str, name: str, **fields: Any) -> ProbeTells:
    return calls("", **{kind: f"shop:{name}", "path": "/healthz", "call": "", **fields})


COMMAND = ("python", "-m", "shop")
BAD_COMMAND = calls("", call="", command=(*COMMAND, "--password", "--hang"), answers_within=2)

RIGHT = {
    "bool": calls("returns_bool"),
    "mapping": calls("returns_mapping"),
    "json": calls("returns_json"),
    "raising": calls("returns_nothing_or_raises"),
    "two": calls("returns_two"),
    "response": calls("returns_a_response"),
    "of workers": calls("tells_of_workers"),
    "async": calls("is_async"),
    "class": calls("Backend"),
    "async-class": calls("Raises"),
    "run": calls("Runs"),
    "async-kept": calls("keeps_its_stream"),
    "async-gives-up": calls("gives_a_thread_up"),
    "arguments": calls("takes_arguments", call_with={"command": "ping"}, may_raise=True),
    "wsgi": requests("wsgi", "wsgi", headers={"X-Asker": "kubelet"}),
    "wsgi-raises": requests("wsgi", "wsgi_raises"),
    "asgi": requests("asgi", "asgi"),
    "asgi-without-lifespan": requests("asgi", "asgi_without_lifespan"),
    "asgi-json": requests("asgi", "asgi_of_json", reads_json=True),
    "response-json": calls("returns_a_response_of_json", reads_json=True),
    "command": calls("", call="", command=COMMAND),
    "pooled": calls("pooled"),
    "thread-kept": calls("keeps_one_thread_in_an_outage"),
    "thread-ends": calls("thread_that_ends_soon_in_an_outage"),
    "cheap": calls("returns_bool", cpu_below="2s"),
}
REFUSES = "while the broker refuses connections (broker_refuses)"
LEFT = "in a healthy world; wanted nothing left behind"
SHOWS = "shows the broker's password in its"
WRONG = {
    "lies": (calls("always_green"), f"always_green says healthy {REFUSES}; wanted unhealthy"),
    "json-lies": (
        calls("returns_json_that_lies"),
        f"returns_json_that_lies says healthy {REFUSES}; wanted unhealthy",
    ),
    "red": (calls("always_red"), "always_red says unhealthy in a healthy world; wanted healthy"),
    "once": (
        calls("green_once"),
        "green_once says unhealthy in a healthy world; wanted healthy",
    ),
    "restarts": (
        calls("returns_bool", unhealthy_when=(), stays_healthy_when=(AWAY,)),
        f"returns_bool says unhealthy {REFUSES}; wanted healthy",
    ),
    "raises": (calls("raises"), "raises raised *Error: * in broker_refuses, at shop.py:*; wanted an answer"),
    "late": (
        calls("is_late", answers_within="500ms"),
        "is_late took * in a healthy world; wanted an answer within 0.5 s",
    ),
    "hangs": (
        calls("hangs", answers_within=2),
        "hangs hung in broker_refuses, at shop.py:* in hangs; wanted an answer within 2 s",
    ),
    "hangs-async": (
        calls("hangs_in_the_loop", answers_within=2),
        "hangs_in_the_loop hung in broker_refuses, at shop.py:* in never; wanted an answer within 2 s",
    ),
    "hangs-task": (
        calls("hangs_in_a_task", answers_within=2),
        "hangs_in_a_task hung in broker_refuses, at shop.py:* in never; wanted an answer within 2 s",
    ),
    "ends": (
        calls("ends_its_process"),
        "ends_its_process ended its process in broker_refuses; wanted an answer",
    ),
    "exits": (
        calls("exits"),
        "exits raised SystemExit: no worker in broker_refuses, at shop.py:*; wanted an answer",
    ),
    "unclear": (
        calls("is_unclear"),
        "cannot tell: is_unclear: says status: purple in a healthy world, which is neither healthy nor not",
    ),
    "thread": (
        calls("leaves_a_thread"),
        f"leaves_a_thread leaves a thread with each call {LEFT}",
    ),
    "connection": (
        calls("leaves_a_connection"),
        f"leaves_a_connection leaves a connection with each call {LEFT}",
    ),
    "thread-in-outage": (
        calls("leaves_a_thread_in_an_outage"),
        f"leaves_a_thread_in_an_outage leaves a thread with each call in {AWAY}; wanted nothing left behind",
    ),
    "connection-in-outage": (
        calls("leaves_a_connection_in_an_outage"),
        f"leaves_a_connection_in_an_outage leaves a connection with each call in {AWAY};"
        " wanted nothing left behind",
    ),
    "thread-given-up": (
        calls("gives_a_thread_up_for_good"),
        f"gives_a_thread_up_for_good leaves a thread with each call in {AWAY}; wanted nothing left behind",
    ),
    "queue": (
        calls("leaves_a_queue", may_raise=True),
        f"leaves_a_queue leaves the queue mispelt {LEFT}",
    ),
    "key": (
        calls("leaves_a_key", may_raise=True),
        f"leaves_a_key leaves the key probed-at {LEFT}",
    ),
    "answer-shows": (
        calls("shows_the_password"),
        f"shows_the_password {SHOWS} answer in a healthy world; wanted it hidden",
    ),
    "log-shows": (
        calls("logs_the_password"),
        f"logs_the_password {SHOWS} log in a healthy world; wanted it hidden",
    ),
    "output-shows": (
        calls("prints_the_password"),
        f"prints_the_password {SHOWS} output in a healthy world; wanted it hidden",
    ),
    "exception-shows": (
        calls("raises_the_password"),
        f"raises_the_password {SHOWS} exception in broker_refuses; wanted it hidden",
    ),
    "burns": (calls("burns", cpu_below="200ms"), "burns takes * ms of processor a call; wanted below 200 ms"),
    "wsgi-path": (
        requests("wsgi", "wsgi", path="/nowhere"),
        "/nowhere says unhealthy in a healthy world; wanted healthy",
    ),
    "asgi-status": (
        requests("asgi", "asgi_of_json"),
        f"/healthz answers 200 {REFUSES}, though its JSON says unhealthy; wanted unhealthy",
    ),
    "response-status": (
        calls("returns_a_response_of_json"),
        f"returns_a_response_of_json answers 200 {REFUSES}, though its JSON says unhealthy; wanted unhealthy",
    ),
    "command-hangs": (
        BAD_COMMAND,
        "python -m shop --password --hang hung in broker_refuses; wanted an answer within 2 s",
    ),
    "command-shows": (
        BAD_COMMAND,
        f"python -m shop --password --hang {SHOWS} output in broker_refuses; wanted it hidden",
    ),
    "command-leaves": (
        calls("", call="", command=("sh", "-c", "setsid sleep 321 & exit 0")),
        f"sh -c setsid sleep 321 & exit 0 leaves the process sleep 321 with each call {LEFT}",
    ),
    "command-missing": (
        calls("", call="", command=("no-such-command",)),
        "cannot tell: no-such-command cannot be run: No such file*",
    ),
    "misspelt": (
        calls("return_bool"),
        "cannot tell: shop:return_bool failed to load:"
        " shop has no 'return_bool'; did you mean 'returns_bool'?",
    ),
}


@pytest.fixture(scope="module")
def verdicts(lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    root = tmp_path_factory.mktemp("kinds")
    shutil.copy(SOURCE, root / "shop.py")
    made = lab("shop:app", root, workers=1)
    wrong = {kind: check for kind, (check, _) in WRONG.items()}
    # All are called again when something is left, to see whose it is.
    leaving = {kind: wrong.pop(kind) for kind in ("queue", "key")}
    beside = {"bool": RIGHT["bool"], **leaving}
    return {**made.verdicts(beside), **made.verdicts({**RIGHT, **wrong})}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RIGHT)
def test_green(verdicts: dict[str, Verdict], kind: str) -> None:
    assert bad(verdicts[kind]) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG)
def test_red(verdicts: dict[str, Verdict], kind: str) -> None:
    said = WRONG[kind][1]
    assert any(fnmatchcase(line, said) for line in bad(verdicts[kind])), bad(verdicts[kind])


@pytest.mark.slow
def test_a_function_that_is_not_there_is_told_once(verdicts: dict[str, Verdict]) -> None:
    assert len(bad(verdicts["misspelt"])) == 1
