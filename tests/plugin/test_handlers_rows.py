"""Rows of `handlers` in a run: what they print, what they start, and where they may look."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.plugin.conftest import Project

ROW = '[tool.celery-health.check.handlers]\nuse = "handlers"\n'
APP = """
from celery import Celery, signals
app = Celery("shop")

@signals.task_failure.connect
def alert(sender, exception, **kwargs): ...
"""
LOST = "signals.task_retry.connect(lambda **kwargs: None)\n"
TABLE = [
    "handlers:",
    "signal        handler        sender  kind      held       where",
    "task_failure  shop:alert     any     function  weakly     shop.py:4",
    "task_retry    shop:<lambda>  any     lambda    collected  shop.py:6",
]


def write(project: Project, code: str, *rows: str) -> None:
    project.pytester.makepyfile(shop=APP + code)
    if rows:
        project.contract(*rows)


def test_a_red_row_prints_the_table(project: Project) -> None:
    write(project, LOST, ROW)
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            *TABLE,
            "1 check: 1 unhealthy · 0 looks, 0 B",
            "FAILED pyproject.toml::handlers[[]sandbox[]] - <lambda> was collected, as it is connected"
            " weakly to task_retry (shop.py:6); wanted connected"
            " (connect it with weak=False, or define it at module level)",
        ]
    )


def test_a_green_row_prints_it_when_asked(project: Project) -> None:
    write(project, "", ROW)
    result = project.run()
    assert result.ret == 0
    result.stdout.no_fnmatch_line("signal *")
    result = project.run("-v")
    result.stdout.fnmatch_lines(["handlers:", "signal * handler * where", "task_failure  shop:alert *"])


def test_a_row_that_only_warns_prints_it(project: Project) -> None:
    write(project, LOST, ROW + 'severity = "warn"\n')
    result = project.run()
    assert result.ret == 0
    result.stdout.fnmatch_lines(TABLE)


@pytest.mark.slow
def test_the_table_comes_back_from_processes_of_xdist(project: Project) -> None:
    write(
        project, LOST, ROW, '[tool.celery-health.check.more]\nuse = "handlers"\nallow = ["shop:<lambda>"]\n'
    )
    result = project.run("-n", "2")
    assert result.ret == 1
    result.stdout.fnmatch_lines([*TABLE, "2 checks: 1 healthy, 1 unhealthy · 0 looks, 0 B"])
    assert result.outlines.count("handlers:") == 1


def test_nothing_is_started_for_it(project: Project) -> None:
    """Nor is the broker that the contract names, which is none."""
    write(project, "", '[tool.celery-health]\napp = "shop:app"\nsandbox.broker = "rabbitmq-server"\n', ROW)
    result = project.run()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*- celery-health: sandbox -*", "1 check: 1 healthy · 0 looks, 0 B"])


@pytest.mark.slow
def test_beside_others_it_sees_the_sandboxs_broker(project: Project) -> None:
    """Code that uses its broker when it is imported finds it there."""
    code = """
import os, redis
redis.Redis.from_url(os.environ["QUEUE_URL"]).set("seen", 1)
"""
    contract = '[tool.celery-health]\napp = "shop:app"\nsandbox = { redirect_env = ["QUEUE_URL"] }\n'
    write(project, code, contract, ROW, '[tool.celery-health.check.workers]\nuse = "workers"\n')
    result = project.run()
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["2 checks: 2 healthy *"])


def test_a_live_target_is_not_reached_by_the_code_that_runs(
    project: Project, staging: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a live target, too, what the project does as its worker starts stays on this machine."""
    code = """
import os, redis
BROKER = os.environ["STAGING_BROKER"]
app.conf.broker_url = BROKER

@signals.worker_init.connect
def announce(sender, **kwargs):
    app.send_task("shop.hello")
    redis.Redis.from_url(BROKER).set("hello", 1)
"""
    text = project.pytester.path.joinpath("pyproject.toml").read_text()
    text = text.replace("[tool.celery-health]\n", '[tool.celery-health]\napp = "shop:app"\n')
    project.pytester.path.joinpath("pyproject.toml").write_text(text + "\n" + ROW)
    write(project, code)
    result = project.run("--celery-health-target=staging", "-v", "pyproject.toml::handlers[staging]")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "worker_init * shop:announce *",
            "refused: 127.0.0.1:* to handlers, at *shop.py:14",
            "1 check: 1 healthy *",
        ]
    )
    assert staging.keys("*") == []
