"""Rows of `probe` in a run, and the same from the fixture."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import LIVE, REPO, Project, run

APP = """
import socket
from celery import Celery
app = Celery("shop")

def always():
    return {"healthy": True, "said": app.conf.broker_url[:8]}

def connects():
    try:
        with app.connection_for_read(connect_timeout=1) as connection:
            socket.create_connection((connection.hostname, connection.port), timeout=1).close()
    except OSError as error:
        return {"healthy": False, "error": str(error)}
    return {"healthy": True}
"""
ROWS = """
[tool.celery-health.check.lies]
use = "probe"
call = "shop:always"
unhealthy_when = ["broker_refuses"]
answers_within = "20s"

[tool.celery-health.check.tells]
use = "probe"
call = "shop:connects"
unhealthy_when = ["broker_refuses"]
answers_within = "20s"
"""


@pytest.fixture
def shop(project: Project) -> Project:
    project.pytester.makepyfile(shop=APP)
    return project


def test_a_lie_and_the_truth(shop: Project) -> None:
    shop.contract(ROWS)
    result, said = shop.with_junit()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "lies:",
            "world           wanted     verdict    took *note",
            "(healthy)       healthy    healthy    *healthy: True, said: redis://",
            "broker_refuses  unhealthy  healthy !  *",
            "2 checks: 1 healthy, 1 unhealthy*",
            "FAILED pyproject.toml::lies[[]sandbox[]] - always says healthy while the broker refuses"
            " connections (broker_refuses); wanted unhealthy",
        ]
    )
    result.stdout.no_fnmatch_line("tells:")  # a matrix in which all is well is for -v
    assert said["broker_refuses.verdict"] in ("healthy", "unhealthy")


ENDPOINT = """
import json

from shop import app, connects

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(connects()).encode()]
"""
ENDPOINT_ROW = """
[tool.celery-health.check.{name}]
use = "probe"
wsgi = "web:application"
path = "/healthz"
unhealthy_when = ["broker_refuses"]
answers_within = "20s"
{more}
"""


def test_an_endpoint_that_answers_200_whatever_its_json_says(shop: Project) -> None:
    shop.pytester.makepyfile(web=ENDPOINT)
    shop.contract(
        ENDPOINT_ROW.format(name="kubelet", more=""),
        ENDPOINT_ROW.format(name="monitor", more="reads_json = true"),
    )
    result = shop.run()
    result.stdout.fnmatch_lines(
        [
            "/healthz answers 200 while the broker refuses connections"
            " (broker_refuses), though its JSON says unhealthy; wanted unhealthy (Kubernetes and load"
            " balancers read the status: answer 503, or set reads_json = true)",
            "2 checks: 1 healthy, 1 unhealthy*",
        ]
    )


def test_a_function_that_is_not_there_is_told_once(shop: Project) -> None:
    shop.contract(ROWS.replace("shop:always", "shop:allways"))
    result = shop.run()
    [line] = [line for line in result.outlines if line.startswith("ERROR ")]
    assert line == (
        "ERROR pyproject.toml::lies[sandbox] - cannot tell: shop:allways failed to load:"
        " shop has no 'allways'; did you mean 'always'?"
    )


@pytest.mark.slow
def test_processes_of_one_run_probe_once(shop: Project) -> None:
    shop.contract(ROWS)
    result = shop.run("-n", "2")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAILED *lies* - always says healthy while the broker refuses connections*"])
    result.stdout.fnmatch_lines(["2 checks: 1 healthy, 1 unhealthy*"])


def test_mistakes_in_the_contract_are_told_before_anything_starts(shop: Project) -> None:
    shop.contract(
        '[tool.celery-health.check.a]\nuse = "probe"\ncall = "shop:f"\nunhealthy_when = ["broker_hang"]\n',
        '[tool.celery-health.check.b]\nuse = "probe"\n',
        '[tool.celery-health.check.c]\nuse = "probe"\ncommand = ["true"]\ncpu_below = "fast"\n',
        '[tool.celery-health.check.d]\nuse = "probe"\ncall = "shop:f"\non = ["staging"]\n',
        LIVE,
    )
    result = shop.run()
    assert result.ret == 4
    for line in (
        '*unhealthy_when has "broker_hang", in which no probe is called; did you mean broker_hangs?*',
        "*nothing is to be called; write one of call, wsgi, asgi, command: call =*",
        "*cpu_below*'fast' is not a duration*",
        "*on names staging, but probe is judged in the sandbox only*",
    ):
        result.stderr.fnmatch_lines([line])


def test_a_broker_that_is_no_server(shop: Project) -> None:
    shop.contract('[tool.celery-health.sandbox]\nbroker = "memory"\nworkers = 0\n', ROWS)
    result = shop.run()
    assert result.ret == 6
    result.stdout.fnmatch_lines(["ERROR *lies* - cannot tell: *memory* is no server*"])


@pytest.mark.slow
def test_a_ready_made_set_on_a_broker_that_asks_for_no_password(shop: Project) -> None:
    """No row of a set is unknown for a world that its broker cannot be brought to, unless it is named."""
    fakeredis = '[tool.celery-health.sandbox]\nbroker = "fakeredis"\nworkers = 1\n'
    row = '[tool.celery-health.check.{}]\nuse = "probe"\ncommand = ["true"]\n{}\n'
    named = 'stays_healthy_when = ["broker_wrong_password"]'
    shop.contract(fakeredis, row.format("alive", 'worlds = "liveness"'), row.format("named", named))
    result = shop.run("-v")
    why = "fakeredis * asks for no password"
    result.stdout.fnmatch_lines(
        [
            f"broker_wrong_password  healthy  n/a*{why}",
            "2 checks: 1 healthy, 1 unknown*",
            f"ERROR pyproject.toml::named[[]sandbox[]] - cannot tell: true: broker_wrong_password: {why}",
        ]
    )


FIXTURE = """
import pytest
import shop

AWAY = ["broker_refuses"]

def test_right(celery_health):
    seen = celery_health.probe(shop.connects, unhealthy_when=AWAY, answers_within="20s")
    assert [answer.verdict for answer in seen.facts[0].seen] == ["healthy", "unhealthy"]

def test_wrong(celery_health):
    celery_health.probe("shop:always", unhealthy_when=AWAY, answers_within="20s")

def test_nameless(celery_health):
    with pytest.raises(TypeError, match="imports it by its name; .*lambda.* has none"):
        celery_health.probe(lambda: True)
"""


def test_the_fixture_in_ordinary_tests(shop: Project) -> None:
    shop.contract("")
    shop.pytester.makepyfile(test_health=FIXTURE)
    result = shop.plain("-p", "no:randomly")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * always says healthy while the broker refuses connections (broker_refuses); wanted unhealthy",
        ]
    )


def test_the_fixture_breaks_no_live_target(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGING", "redis://127.0.0.1:1/0")
    shop.contract('[tool.celery-health.target.staging]\nbroker = "env:STAGING"\nexpect_host = "127.0.0.1"\n')
    shop.pytester.makepyfile(
        test_health="""
        import pytest
        @pytest.mark.celery_health
        def test_it(celery_health):
            celery_health.probe("shop:always")
        """
    )
    result = shop.run("--celery-health-target=staging")
    result.stdout.fnmatch_lines(
        ["*celery_health.probe: it needs worlds that are broken, and staging is only looked at*"]
    )


PROBES = [
    f"pyproject.toml::{row}[sandbox]"
    for row in ("healthz", "beat-health", "stuck-tasks", "queue-lengths", "queue-gauge")
]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_guide_is_red_for_what_it_never_sees() -> None:
    done = run(REPO / "tests" / "projects" / "guide", *PROBES, within=300)
    assert done.returncode == 1, done.stdout
    for line in (
        "check_celery_health hung in broker_hangs, at shop/health.py:",
        "check_celery_health says healthy while no worker consumes a queue (not_consuming)",
        "check_celery_health says healthy while every worker consumes another queue (other_queue)",
        "check_beat_health says healthy while the heartbeat is exactly a day old (heartbeat_day_old)",
        "check_beat_health says unhealthy while the heartbeat is a second in the future",
        "find_long_running_tasks found nothing while there is no worker (no_workers); wanted an error,"
        " or to be told of it (silence is no proof)",
        "find_long_running_tasks hung in broker_hangs",
        "inspect_queues leaves the queue default in new_broker",
        "celery_queue_length shows 1,001 for default while the messages that waited are gone (queue_drained)",
        "5 checks: 5 unhealthy",
    ):
        assert line in done.stdout, (line, done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_other_styles_are_green() -> None:
    done = run(REPO / "tests" / "projects" / "health_styles", within=300)
    assert done.returncode == 0, done.stdout
    assert "6 checks: 6 healthy" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_shop_is_green() -> None:
    done = run(REPO / "examples" / "shop", *PROBES, within=300)
    assert done.returncode == 0, done.stdout
    assert "5 checks: 5 healthy" in done.stdout
