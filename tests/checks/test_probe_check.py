"""What is made of a probe's answers, without calling one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_celery_health import Answer, Probed, ProbeTells, Snapshot, Unseen, Verdict, judge
from pytest_celery_health.checks.probe import FAULTS, SETS, STATES, WORLDS
from pytest_celery_health.sandbox.faults import FAULTS as REGISTRY
from pytest_celery_health.sandbox.probes.states import DESERTED, HEARTBEATS

REFUSES = ProbeTells(call="shop.health:check", unhealthy_when=("broker_refuses",), answers_within="6s")
FINDER = ProbeTells(call="shop.health:find_stuck", worlds="stuck_task_check")
QUEUES = ProbeTells(call="shop.health:lengths", worlds="queue_check")
GAUGE = ProbeTells(call="shop.health:update", worlds="gauge", gauge="celery_queue_length")
WELL = Answer("", "healthy", "verdict", "healthy: True", took=0.1)
ILL = Answer("broker_refuses", "unhealthy", "verdict", "connection refused", took=0.1)
WAIT = "messages of all priorities wait in the queue (queue_filled)"
DATA = Answer("", "healthy", "data", "default: 0")


def verdict(check: ProbeTells, *answers: Answer) -> Verdict:
    [ask] = check.asks()
    return judge(check, Snapshot(Probed(check.probe, answers, ask.setting)))


def lines(check: ProbeTells, *answers: Answer) -> list[str]:
    """What is bad. What was not answered is not told again."""
    return [finding.line() for finding in verdict(check, *answers).bad]


def test_right_in_each_world() -> None:
    found = verdict(REFUSES, WELL, ILL)
    assert found.healthy
    assert found.message() == "check says what is in 2 of 2 worlds"


def test_a_lie() -> None:
    assert lines(REFUSES, WELL, replace(ILL, verdict="healthy")) == [
        "check says healthy while the broker refuses connections (broker_refuses); wanted unhealthy"
    ]


def test_red_in_a_healthy_world() -> None:
    assert lines(REFUSES, replace(WELL, verdict="unhealthy", said="no worker"), ILL) == [
        "check says unhealthy in a healthy world; wanted healthy (no worker)"
    ]


def test_red_where_it_must_stay_green() -> None:
    check = ProbeTells(call="shop.health:alive", stays_healthy_when=("broker_refuses",))
    assert lines(check, WELL, ILL) == [
        "alive says unhealthy while the broker refuses connections (broker_refuses); wanted healthy"
        " (connection refused)"
    ]
    assert verdict(check, WELL, replace(ILL, verdict="healthy")).healthy


SAYS_SO_BY_JSON = replace(ILL, verdict="healthy", said="HTTP 200 no worker", status=200, json="unhealthy")
OF_JSON = replace(REFUSES, reads_json=True)


def test_the_status_of_a_response_tells() -> None:
    assert lines(REFUSES, WELL, SAYS_SO_BY_JSON) == [
        "check answers 200 while the broker refuses connections (broker_refuses), though its JSON says"
        " unhealthy; wanted unhealthy (Kubernetes and load balancers read the status: answer 503, or set"
        " reads_json = true)"
    ]
    assert verdict(OF_JSON, WELL, SAYS_SO_BY_JSON).healthy
    rows = [row[:3] for row in verdict(REFUSES, WELL, SAYS_SO_BY_JSON).table]
    assert rows[-1] == ("broker_refuses", "unhealthy", "healthy !")
    assert verdict(OF_JSON, WELL, SAYS_SO_BY_JSON).table[-1][2] == "unhealthy"


def test_who_reads_json_is_held_to_it_in_a_healthy_world() -> None:
    usual = replace(SAYS_SO_BY_JSON, world="")
    assert lines(REFUSES, usual, ILL) == []
    assert lines(OF_JSON, usual, ILL) == [
        "check says unhealthy in a healthy world; wanted healthy (HTTP 200 no worker)"
    ]
    found = verdict(OF_JSON, replace(WELL, status=200, json="unclear", said="HTTP 200 purple"), ILL)
    assert "check: says HTTP 200 purple in a healthy world, which is neither" in found.message()


def test_json_makes_no_error_status_healthy() -> None:
    assert verdict(OF_JSON, WELL, replace(ILL, status=503, json="healthy")).healthy


def test_hung() -> None:
    hung = Answer("broker_refuses", "hung", where="shop/health.py:31 in check", took=7.5)
    assert lines(REFUSES, WELL, hung) == [
        "check hung in broker_refuses, at shop/health.py:31 in check; wanted an answer within 6 s"
    ]


def test_late() -> None:
    assert lines(REFUSES, WELL, replace(ILL, took=6.12)) == [
        "check took 6.1 s in broker_refuses; wanted an answer within 6 s"
    ]


def test_the_figures_of_each_world_are_its_own() -> None:
    """In JUnit XML one world's time does not hide another's."""
    hung = Answer("broker_hangs", "hung", took=7.5)
    untried = Answer("no_workers", unseen="the worker did not start")
    check = ProbeTells(
        call="shop.health:check", unhealthy_when=("broker_refuses", "broker_hangs", "no_workers")
    )
    found = verdict(check, replace(WELL, cpu=0.0314), replace(ILL, took=6.1234), hung, untried)
    figures = {key: value for finding in found.findings for key, value in finding.figures.items()}
    assert figures == {
        "healthy.verdict": "healthy",
        "healthy.took": 0.1,
        "healthy.cpu": 0.031,
        "broker_refuses.verdict": "unhealthy",
        "broker_refuses.took": 6.123,
        "broker_hangs.verdict": "hung",
        "broker_hangs.took": 7.5,
        "no_workers.verdict": "",
    }


def test_its_process_ended() -> None:
    ended = Answer("broker_refuses", "crashed", said="Segmentation fault")
    assert lines(REFUSES, WELL, ended) == [
        "check ended its process in broker_refuses; wanted an answer (Segmentation fault)"
    ]


RAISED = Answer("broker_refuses", "raised", said="OSError: refused", where="shop/health.py:9")


def test_raising_instead_of_answering() -> None:
    wrong = "check raised OSError: refused in broker_refuses, at shop/health.py:9; wanted an answer"
    assert lines(REFUSES, WELL, RAISED) == [wrong]
    assert lines(replace(REFUSES, may_raise=True), WELL, RAISED) == []


@pytest.mark.parametrize("kind", ["nothing", "data"])
def test_raising_is_the_answer_of_what_otherwise_says_nothing(kind: str) -> None:
    assert lines(REFUSES, replace(WELL, kind=kind), RAISED) == []
    assert lines(replace(REFUSES, may_raise=False), replace(WELL, kind=kind), RAISED)


def test_raising_in_a_healthy_world_is_never_right() -> None:
    raised = replace(RAISED, world="")
    assert lines(replace(REFUSES, may_raise=True), raised, ILL) == [
        "check raised OSError: refused in a healthy world, at shop/health.py:9; wanted an answer"
    ]


def test_what_is_neither() -> None:
    found = verdict(REFUSES, WELL, replace(ILL, verdict="unclear", said="status: purple"))
    assert found.unknown
    assert found.message() == (
        "cannot tell: check: says status: purple in broker_refuses, which is neither healthy nor not"
    )


def test_a_world_that_did_not_come_about() -> None:
    found = verdict(REFUSES, WELL, Answer("broker_refuses", unseen="memory is no server"))
    assert found.message() == "cannot tell: check: broker_refuses: memory is no server"
    assert verdict(REFUSES, WELL).message() == "cannot tell: check: broker_refuses: it was not called there"


LIVE = ProbeTells(call="shop.health:alive", worlds="liveness")
NO_PASSWORD = Answer("broker_wrong_password", impossible="fakeredis asks for no password")
ELSEWHERE = [
    replace(WELL, world=world) for world in SETS["liveness"].healthy if world != "broker_wrong_password"
]


def test_a_world_of_a_set_that_this_broker_has_not_is_left_out_and_told() -> None:
    found = verdict(LIVE, WELL, *ELSEWHERE, NO_PASSWORD)
    assert found.healthy
    assert found.message() == (
        "alive says what is in 5 of 5 worlds"
        " (not tried: broker_wrong_password: fakeredis asks for no password)"
    )
    row = ("broker_wrong_password", "healthy", "n/a", "", "fakeredis asks for no password")
    assert row in found.table


def test_a_world_that_this_broker_has_not_is_unknown_where_it_was_named() -> None:
    named = replace(LIVE, stays_healthy_when=("broker_wrong_password",))
    message = "cannot tell: alive: broker_wrong_password: fakeredis asks for no password"
    assert verdict(named, WELL, *ELSEWHERE, NO_PASSWORD).message() == message
    alone = replace(LIVE, worlds="", stays_healthy_when=("broker_wrong_password",))
    assert verdict(alone, WELL, NO_PASSWORD).message() == message


def test_a_set_of_which_nothing_was_tried_is_unknown() -> None:
    no_server = [Answer(world, impossible="memory is no server") for world in SETS["liveness"].healthy]
    assert verdict(LIVE, WELL, *no_server).unknown
    untried = [Answer(each.world, unseen="the worker did not start") for each in ELSEWHERE]
    assert "broker_wrong_password: fakeredis asks" in " ".join(
        finding.line() for finding in verdict(LIVE, WELL, *untried, NO_PASSWORD).blind
    )


def test_what_keeps_it_from_being_called_is_told_once() -> None:
    check = replace(REFUSES, unhealthy_when=("broker_refuses", "no_workers", "other_queue"))
    why = "shop.health:nosuch failed to load: shop.health has no 'nosuch'"
    answers = [Answer(world, unseen=why) for world in ("", *check.unhealthy_when)]
    assert verdict(check, *answers).message() == f"cannot tell: check: {why}"
    found = verdict(check, WELL, *answers[1:3], replace(ILL, world="other_queue"))
    assert found.message() == f"cannot tell: check: broker_refuses and no_workers: {why}"


def test_nothing_was_called() -> None:
    unseen = Snapshot(unseen={Probed: Unseen("the app does not load")})
    assert judge(REFUSES, unseen).message() == "cannot tell: check: the app does not load"


def test_what_is_left_behind() -> None:
    assert lines(REFUSES, replace(WELL, left=("a thread with each call",)), ILL) == [
        "check leaves a thread with each call in a healthy world; wanted nothing left behind"
    ]


def test_a_password_is_shown() -> None:
    assert lines(REFUSES, WELL, replace(ILL, shows=("answer",))) == [
        "check shows the broker's password in its answer in broker_refuses; wanted it hidden"
    ]


def test_what_a_call_costs() -> None:
    check = replace(REFUSES, cpu_below="200ms")
    assert lines(check, replace(WELL, cpu=0.31), ILL) == [
        "check takes 310 ms of processor a call; wanted below 200 ms"
    ]
    assert lines(check, replace(WELL, cpu=0.05), replace(ILL, cpu=3.0)) == []


def test_silence_is_no_proof() -> None:
    nothing = Answer("", "unhealthy", "data", "found nothing")
    silent = [replace(nothing, world=world) for world in SETS["stuck_task_check"].unhealthy]
    assert lines(FINDER, nothing, *silent) == [
        "find_stuck found nothing while a task has run for too long (task_stuck); wanted the task",
        "find_stuck found nothing while the broker refuses connections (broker_refuses); wanted an error, or"
        " to be told of it (silence is no proof)",
        "find_stuck found nothing while the broker takes connections and never answers (broker_hangs); wanted"
        " an error, or to be told of it (silence is no proof)",
        "find_stuck found nothing while there is no worker (no_workers); wanted an error, or to be told of it"
        " (silence is no proof)",
    ]


def test_figures_where_there_must_be_an_error() -> None:
    check = ProbeTells(call="shop.health:count", unhealthy_when=("no_workers",))
    assert lines(check, DATA, replace(DATA, world="no_workers", said="num: 2")) == [
        "count says num: 2 while there is no worker (no_workers); wanted an error, or to be told of it"
    ]


def test_a_finder_that_finds() -> None:
    nothing = Answer("", "unhealthy", "data", "found nothing")
    raised = [
        Answer(each, "raised", said="NoAnswer") for each in ("broker_refuses", "broker_hangs", "no_workers")
    ]
    found = replace(nothing, world="task_stuck", verdict="healthy", said="found 1")
    quiet = replace(nothing, world="task_runs")
    assert verdict(FINDER, nothing, found, quiet, *raised).healthy
    [wrong] = lines(FINDER, nothing, found, replace(found, world="task_runs"), *raised)
    assert wrong.startswith(
        "find_stuck says unhealthy while a task has run for a while, and is not stuck yet"
    )
    [wrong] = lines(FINDER, replace(found, world=""), found, quiet, *raised)
    assert wrong == "find_stuck says unhealthy in a healthy world; wanted healthy (found 1)"


def test_a_list_of_what_is_well() -> None:
    check = ProbeTells(call="shop.health:workers", unhealthy_when=("no_workers",))
    usual = Answer("", "healthy", "data", "found 2")
    assert verdict(check, usual, Answer("no_workers", "unhealthy", "data", "found nothing")).healthy
    assert lines(check, usual, Answer("no_workers", "healthy", "data", "found 2"))


def _counts(filled: tuple[float, ...], drained: tuple[float, ...]) -> list[Answer]:
    others = [Answer(world, "raised") for world in ("broker_refuses", "broker_hangs")]
    for world, figures in {"new_broker": (), "queue_filled": filled, "queue_drained": drained}.items():
        others.append(replace(DATA, world=world, figures=figures, queue="default", depth=1001))
    return [DATA, *others]


def test_messages_are_counted() -> None:
    assert verdict(QUEUES, *_counts((1001.0,), (0.0,))).healthy
    assert verdict(QUEUES, *_counts((3.0, 1001.0), ())).healthy
    assert lines(QUEUES, *_counts((251.0,), (0.0,))) == [
        f"lengths shows 251 for default while {WAIT}; wanted 1,001"
    ]
    assert lines(QUEUES, *_counts((), (0.0,))) == [
        f'lengths shows no number for default while {WAIT}; wanted 1,001 (another queue? write queue = "...")'
    ]
    assert lines(QUEUES, *_counts((1001.0,), (1001.0,))) == [
        "lengths shows 1,001 for default while the messages that waited are gone (queue_drained); wanted 0"
    ]


def test_a_verdict_on_a_full_queue() -> None:
    away = [replace(ILL, world=world) for world in ("broker_refuses", "broker_hangs", "queue_filled")]
    fine = [replace(WELL, world=world) for world in ("queue_drained", "new_broker")]
    assert verdict(QUEUES, WELL, *away, *fine).healthy
    away[-1] = replace(WELL, world="queue_filled")
    assert lines(QUEUES, WELL, *away, *fine) == [f"lengths says healthy while {WAIT}; wanted unhealthy"]


def _shows(*figures: float | None, world: str = "") -> Answer:
    known = bool(figures) and None not in figures
    return Answer(
        world, "healthy" if known else "unhealthy", "gauge", "", figures=figures, queue="q", depth=9
    )


def test_a_gauge() -> None:
    filled, drained = _shows(9.0, world="queue_filled"), _shows(0.0, world="queue_drained")
    gone = [_shows(None, world="broker_refuses"), _shows(world="broker_hangs")]
    assert verdict(GAUGE, _shows(), filled, drained, *gone).healthy
    assert verdict(GAUGE, _shows(0.0), filled, drained, *gone).healthy
    assert lines(GAUGE, _shows(), filled, drained, gone[1], _shows(9.0, world="broker_refuses")) == [
        "celery_queue_length still shows 9 while the broker refuses connections (broker_refuses); wanted no"
        " value, or NaN"
    ]
    assert lines(GAUGE, _shows(), filled, _shows(9.0, world="queue_drained"), *gone) == [
        "celery_queue_length shows 9 for q while the messages that waited are gone (queue_drained); wanted 0"
    ]


def test_the_matrix() -> None:
    check = replace(REFUSES, unhealthy_when=("broker_refuses", "broker_hangs"))
    table = verdict(
        check,
        WELL,
        replace(ILL, verdict="healthy", said="2 workers"),
        Answer("broker_hangs", unseen="no proxy"),
    ).table
    assert table == (
        ("world", "wanted", "verdict", "took", "note"),
        ("(healthy)", "healthy", "healthy", "0.1 s", "healthy: True"),
        ("broker_refuses", "unhealthy", "healthy !", "0.1 s", "2 workers"),
        ("broker_hangs", "unhealthy", "?", "", "no proxy"),
    )


def test_the_matrix_of_figures() -> None:
    rows = {row[0]: row for row in verdict(QUEUES, *_counts((251.0,), (0.0,))).table}
    assert rows["queue_filled"][1:3] == ("1,001", "251 !")
    assert rows["queue_drained"][1:3] == ("0", "0")
    rows = {row[0]: row for row in verdict(GAUGE, _shows(), _shows(9.0, world="broker_hangs")).table}
    assert rows["broker_hangs"][1:3] == ("no value", "9 !")
    assert rows["(healthy)"][1:3] == ("-", "no value")


def test_a_list_counts_for_more_than_the_set() -> None:
    check = ProbeTells(call="m:f", worlds="readiness", stays_healthy_when=("no_workers", "broker_slow"))
    [ask] = check.asks()
    assert set(ask.worlds) == {*SETS["readiness"].unhealthy, "broker_slow"}
    answers = [replace(WELL, world=world) for world in ("no_workers", "broker_slow")]
    answers += [replace(ILL, world=w) for w in SETS["readiness"].unhealthy if w != "no_workers"]
    assert verdict(check, WELL, *answers).healthy


def test_a_file_is_never_garbage() -> None:
    check = ProbeTells(call="m:f", worlds="beat_check", heartbeat="file:beat.stamp")
    [ask] = check.asks()
    assert "heartbeat_garbage" not in ask.worlds
    assert "heartbeat_day_old" in ask.worlds


def test_what_a_function_tells_is_never_garbage() -> None:
    check = ProbeTells(call="m:f", worlds="beat_check", heartbeat="call:m:last")
    [ask] = check.asks()
    assert set(SETS["beat_check"].unhealthy) - set(ask.worlds) == {"heartbeat_garbage"}


def test_a_host_is_named_in_what_is_said_of_its_world() -> None:
    check = ProbeTells(call="m:f", host="api.example.com", unhealthy_when=("host_hangs",))
    [line] = [each.line() for each in verdict(check, WELL, replace(WELL, world="host_hangs")).bad]
    assert line == (
        "f says healthy while api.example.com takes requests and never answers (host_hangs); wanted unhealthy"
    )


def test_rows_about_one_check_are_one_ask() -> None:
    other = replace(REFUSES, unhealthy_when=("no_workers",), answers_within=2)
    [one], [two] = REFUSES.asks(), other.asks()
    both = one.joined(two)
    assert both is not None
    assert (both.worlds, both.within) == (("broker_refuses", "no_workers"), 6.0)
    [third] = replace(REFUSES, depth=5).asks()
    assert one.joined(third) is None


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "nothing is to be called; write one of call, wsgi, asgi, command"),
    ({"call": "m:f", "command": ("true",)}, "call and command are given; write one of"),
    ({"call": "m.f"}, 'call is "m.f"; write "package.module:name"'),
    ({"wsgi": "m:app"}, 'path is ""; write the path that is asked for, path = "/healthz" say'),
    ({"call": "m:f", "path": "/x"}, "path is for wsgi and asgi only, and this is call"),
    ({"command": ("true",), "call_with": {"a": 1}}, "call_with is for call only, and this is command"),
    (
        {"command": ("true",), "reads_json": True},
        "reads_json is for call, wsgi and asgi only, and this is command",
    ),
    ({"call": "m:f", "answers_within": 0}, "answers_within is 0, which nothing can meet"),
    ({"call": "m:f", "depth": 0}, "depth is 0; write 1 or more"),
    ({"call": "m:f", "worlds": "readyness"}, "no set of worlds; did you mean readiness?"),
    ({"call": "m:f", "worlds": "gauge"}, 'gauge is missing, and worlds is "gauge"'),
    (
        {"call": "m:f", "unhealthy_when": ("broker_hang",)},
        'unhealthy_when has "broker_hang", in which no probe is called; did you mean broker_hangs?',
    ),
    (
        {"call": "m:f", "unhealthy_when": ("no_workers",), "stays_healthy_when": ("no_workers",)},
        "no_workers is in unhealthy_when and in stays_healthy_when",
    ),
    (
        {"call": "m:f", "call_with": {"at": {1, 2}}},
        "call_with: .*set.*; it crosses to another process as JSON",
    ),
    (
        {"call": "m:f", "unhealthy_when": ("heartbeat_garbage",), "heartbeat": "call:m:last"},
        'unhealthy_when has "heartbeat_garbage", and the heartbeat is call:m:last: only the project knows how'
        " it is written, so that is for a test of its own; remove it from unhealthy_when",
    ),
    (
        {"call": "m:f", "unhealthy_when": ("heartbeat_garbage",), "heartbeat": "file:beat"},
        "the heartbeat is file:beat: the time at which a file was changed is always a time; remove it",
    ),
    (
        {"command": ("true",), "worlds": "beat_check", "heartbeat": "call:m:last"},
        "command has a clock of its own, and what call:m:last tells is aged by the clock of the probe; name",
    ),
    (
        {"call": "m:f", "stays_healthy_when": ("host_hangs",)},
        'host is missing, and host_hangs is named; write host = "api.example.com", say',
    ),
    (
        {"call": "m:f", "host": "https://api.example.com"},
        'host is "https://api.example.com", which is no host; write host = "api.example.com", say',
    ),
    (
        {"command": ("true",), "host": "a.b", "unhealthy_when": ("host_slow",)},
        "command is a process that the host's answers, in host_slow, cannot be put into; name the function",
    ),
]


@pytest.mark.parametrize(("fields", "said"), MISTAKES, ids=[said[:30] for _, said in MISTAKES])
def test_mistakes(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        ProbeTells(**fields)


def test_the_worlds_are_those_that_there_are() -> None:
    assert set(FAULTS) == set(REGISTRY)
    assert set(STATES) == {*DESERTED, *HEARTBEATS}
    for ready in SETS.values():
        assert {*ready.unhealthy, *ready.healthy, *ready.tried} <= set(WORLDS)
