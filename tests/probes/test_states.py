"""The ready-made sets of worlds: what is right in all of them, and what is caught in which."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_celery_health import ProbeTells, Verdict
from tests.probes.conftest import Lab, bad

SOURCE = Path(__file__).with_name("checks_in_states.py")
HEARTBEAT = "redis:beat-seen"
TOLD = "call:shop:last_beat"
OF_HOSTS = ("host_refuses", "host_hangs", "host_answers")


def calls(name: str, worlds: str, **fields: Any) -> ProbeTells:
    beat = {"heartbeat": HEARTBEAT} if worlds == "beat_check" else {}
    return ProbeTells(**{"call": f"shop:{name}", "worlds": worlds, "answers_within": 20, **beat, **fields})


def asks_host(name: str, *worlds: str, green: bool = False, **fields: Any) -> ProbeTells:
    told = {"stays_healthy_when" if green else "unhealthy_when": worlds}
    host = (
        {"host": "hooks.slack.com"} if green else {"host": "api.example.com", "host_body": '{"open": true}'}
    )
    way = {} if "wsgi" in fields else {"call": f"shop:{name}"}
    return ProbeTells(**{**way, "answers_within": 8, **host, **told, **fields})


RIGHT = {
    "tasks": calls("tasks_are_registered", "", stays_healthy_when=("queue_drained", "task_runs")),
    "lengths": calls("lengths", "queue_check"),
    "depth": calls("below_a_thousand", "queue_check"),
    "one queue": calls("lengths", "queue_check", queue="mail", depth=7),
    "gauge": calls("sets_gauge", "gauge", gauge="queue_ready"),
    "gauge of its own registry": calls("sets_gauge_of_its_own_registry", "gauge", gauge="queue_ready_own"),
    "beat": calls("beat", "beat_check"),
    "beat by call": calls("beat", "beat_check", heartbeat=TOLD),
    "api": asks_host("ready", *OF_HOSTS),
    "api, async": asks_host("ready_async", *OF_HOSTS),
    "api, wsgi": asks_host("", *OF_HOSTS, wsgi="shop:application", path="/ready"),
    "api, slow": asks_host("ready", "host_slow"),
    "slack": asks_host("tells_slack", *OF_HOSTS, "host_slow", green=True),
    "stuck": calls("stuck", "stuck_task_check", call_with={"seconds": 300}),
    "sooner": calls("stuck", "stuck_task_check", call_with={"seconds": 60}, stuck_after="1min"),
}
WRONG = {
    "one priority": (
        calls("one_priority_only", "queue_check"),
        ["one_priority_only shows 251 for orders while messages of all priorities wait in the queue"],
    ),
    "creates": (
        calls("creates_queues", "queue_check"),
        [
            "creates_queues leaves the queue mail in a healthy world",
            "creates_queues leaves the queue mail in queue_filled",
            "creates_queues leaves the queue mail in queue_drained",
            "creates_queues leaves the queue mail in new_broker",
            "creates_queues leaves the queue orders in new_broker",
        ],
    ),
    "gauge": (
        calls("leaves_gauge", "gauge", gauge="queue_stale"),
        [
            "queue_stale still shows 1,001 while the broker refuses connections",
            "queue_stale still shows 1,001 while the broker takes connections and never answers",
            "queue_stale shows 1,001 for orders while the messages that waited are gone",
        ],
    ),
    "gauge that nobody finds": (
        calls("sets_gauge_that_nobody_finds", "gauge", gauge="queue_hidden"),
        [
            "queue_hidden shows no number for orders while messages of all priorities wait in the queue"
            " (queue_filled); wanted 1,001",
            "queue_hidden shows no number for orders while the messages that waited are gone",
        ],
    ),
    "beat": (
        calls("beat_by_seconds", "beat_check"),
        [
            "beat_by_seconds says healthy while the heartbeat is exactly a day old",
            "beat_by_seconds says unhealthy while the heartbeat is a second in the future",
        ],
    ),
    "beat by call": (
        calls("beat_by_seconds", "beat_check", heartbeat=TOLD),
        [
            "beat_by_seconds says healthy while the heartbeat is exactly a day old",
            "beat_by_seconds says unhealthy while the heartbeat is a second in the future",
        ],
    ),
    "beat of another life": (
        calls("beat", "", unhealthy_when=("heartbeat_missing",), heartbeat="call:shop:last_of_another_life"),
        [
            "cannot tell: heartbeat_missing: call:shop:last_of_another_life tells of a heartbeat that no beat"
            " here has sent: it is not kept in the sandbox's Redis, so it cannot be taken away"
        ],
    ),
    "api": (
        asks_host("ready_whatever_happens", *OF_HOSTS),
        [
            "ready_whatever_happens says healthy while api.example.com refuses connections (host_refuses)",
            "ready_whatever_happens says healthy while api.example.com takes requests and never answers",
            "ready_whatever_happens says healthy while api.example.com answers every request with status 500",
        ],
    ),
    "slack": (
        asks_host("waits_for_slack", "host_hangs", "host_refuses", green=True),
        [
            "waits_for_slack hung in host_hangs, at shop.py:",
            "waits_for_slack raised ConnectionError: ",
        ],
    ),
    "silent": (
        calls("stuck_or_silent", "stuck_task_check", call_with={"seconds": 300}),
        [
            "stuck_or_silent found nothing while the broker refuses connections",
            "stuck_or_silent found nothing while the broker takes connections and never answers",
            "stuck_or_silent found nothing while there is no worker",
        ],
    ),
    "late": (
        calls("stuck", "stuck_task_check", call_with={"seconds": 600}),
        ["stuck found nothing while a task has run for too long"],
    ),
    "early": (
        calls("stuck", "stuck_task_check", call_with={"seconds": 60}),
        ["stuck says unhealthy while a task has run for a while, and is not stuck yet"],
    ),
    "no heartbeat": (
        calls("beat", "", unhealthy_when=("heartbeat_old",)),
        ["cannot tell: heartbeat_old: no `beat` row says where the heartbeat is"],
    ),
    "elsewhere": (
        calls("beat", "", unhealthy_when=("heartbeat_old",), heartbeat="redbeat"),
        [
            "cannot tell: heartbeat_old: the heartbeat redbeat cannot be made older;"
            " redis:, file: and call: can"
        ],
    ),
}


@pytest.fixture(scope="module")
def verdicts(lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    root = tmp_path_factory.mktemp("states")
    shutil.copy(SOURCE, root / "shop.py")
    made = lab("shop:app", root, workers=1, concurrency=1, beat=("heartbeat",), redirect_env=("BROKER",))
    wrong = {f"wrong {name}": check for name, (check, _) in WRONG.items()}
    return made.verdicts({**RIGHT, **wrong})


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_green_in_every_world(verdicts: dict[str, Verdict], name: str) -> None:
    assert bad(verdicts[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_red_where_it_is_wrong(verdicts: dict[str, Verdict], name: str) -> None:
    found = bad(verdicts[f"wrong {name}"])
    missing = [said for said in WRONG[name][1] if not any(line.startswith(said) for line in found)]
    assert not missing, found
    assert len(found) == len(WRONG[name][1]), found


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["", "fakeredis"])
def test_what_a_beat_wrote_before_is_away_where_there_is_no_heartbeat(
    lab: Callable[..., Lab], tmp_path: Path, broker: str
) -> None:
    shutil.copy(SOURCE, tmp_path / "shop.py")
    spec = {"workers": 1, "concurrency": 1, "beat": ("heartbeat",), "redirect_env": ("BROKER",)}
    made = lab("shop:app", tmp_path, broker=broker, start_within=60, **spec)
    fields = {"unhealthy_when": ("heartbeat_missing",), "stays_healthy_when": ("heartbeat_young",)}
    check = ProbeTells(call="shop:beat", answers_within=20, heartbeat=TOLD, **fields)
    wrong = ProbeTells(call="shop:alive", answers_within=20, heartbeat=TOLD, **fields)
    for _ in range(2):
        verdicts = made.verdicts({"right": check, "wrong": wrong})
        assert bad(verdicts["right"]) == []
        assert bad(verdicts["wrong"]) == [
            "alive says healthy while there is no heartbeat (heartbeat_missing); wanted unhealthy"
        ]
