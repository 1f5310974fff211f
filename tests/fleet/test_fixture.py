"""The fixture `celery_fleet` in a user's own test run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import own_run

slow = pytest.mark.slow

CONTRACT = '[tool.celery-health]\napp = "shop:app"\n'
SANDBOX = '\n[tool.celery-health.sandbox]\nredirect_env = ["REDIS_URL"]\n'
SHOP = """
import os, time
import redis
from celery import Celery, current_app

BROKER = os.environ.get("REDIS_URL", "redis://:s3cret@broker.invalid/0")
app = Celery("shop", broker=BROKER, backend=BROKER)

@app.task
def pay(): ...

def find_long_running_tasks(threshold):
    active = current_app.control.inspect(timeout=20, limit=1).active() or {}
    now = time.time()
    return [t["name"] for tasks in active.values() for t in tasks if now - t["time_start"] > threshold]

def backlog(queue):
    with redis.Redis.from_url(BROKER) as client:
        return client.llen(queue)
"""
STUCK = """
from pytest_celery_health import RunningTask
from shop import app, backlog, find_long_running_tasks

def test_finds_stuck_tasks(celery_fleet):
    celery_fleet.worker("w1@sim", active=[RunningTask("shop.report", running_for=301)])
    assert find_long_running_tasks(THRESHOLD) == ["shop.report"]
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    own_run.prepare(monkeypatch, "REDIS_URL", "CELERY_BROKER_URL")
    pytester.makepyprojecttoml(CONTRACT + SANDBOX)
    pytester.makepyfile(shop=SHOP)
    return pytester


def run(project: pytest.Pytester, test: str, *args: str) -> pytest.RunResult:
    project.makepyfile(test_it=test)
    return own_run.run(project, "-v", *args)


def test_code_under_test_sees_what_the_test_says(project: pytest.Pytester) -> None:
    found = run(
        project,
        STUCK.replace("THRESHOLD", "300")
        + """
def test_its_queue_is_full(celery_fleet):
    celery_fleet.queue("billing", ready=1204)
    assert backlog("billing") == 1204

def test_the_next_begins_with_nothing(celery_fleet):
    assert backlog("billing") == 0
    assert app.control.ping(timeout=0.1) == []
    assert len(celery_fleet) == 0

def test_the_app_is_itself_again():
    assert app.conf.broker_url == "redis://:s3cret@broker.invalid/0"
""",
    )
    found.assert_outcomes(passed=4)


@pytest.mark.slow
def test_a_test_that_fails_tells_what_there_was(project: pytest.Pytester) -> None:
    found = run(project, STUCK.replace("THRESHOLD", "302"))
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        [
            "*AssertionError: assert *'shop.report'*",
            "*Captured celery_fleet teardown*",
            "broker: *",
            "workers: w1@sim",
            "asked: active 1x",
            "FAILED *",
        ]
    )
    assert "s3cret" not in found.stdout.str()


@slow
def test_code_that_asks_elsewhere_is_told(project: pytest.Pytester) -> None:
    found = run(
        project,
        """
        from celery import Celery
        elsewhere = Celery("elsewhere", broker="memory://", set_as_current=False)

        def test_it(celery_fleet, monkeypatch):
            monkeypatch.delenv("CELERY_BROKER_URL")
            monkeypatch.delenv("CELERY_BROKER_READ_URL")
            monkeypatch.delenv("CELERY_BROKER_WRITE_URL")
            celery_fleet.workers(7)
            assert elsewhere.control.ping(timeout=0.1)
        """,
    )
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        [
            "workers: w1@sim, w2@sim, w3@sim, w4@sim, w5@sim, ... (7 workers)",
            "asked: nothing, by nobody who uses this broker",
        ]
    )


@slow
def test_each_process_of_xdist_has_a_broker_of_its_own(project: pytest.Pytester) -> None:
    found = run(
        project,
        STUCK.replace("THRESHOLD", "300")
        + """
import pytest

@pytest.mark.parametrize("turn", range(8))
def test_queue(celery_fleet, turn):
    celery_fleet.queue("billing", ready=turn)
    assert backlog("billing") == turn
""",
        *("-p", "xdist", "-n", "2"),
    )
    found.assert_outcomes(passed=9)


def test_no_contract_is_needed(project: pytest.Pytester) -> None:
    (project.path / "pyproject.toml").unlink()
    run(project, STUCK.replace("THRESHOLD", "300")).assert_outcomes(passed=1)


@slow
def test_an_app_is(project: pytest.Pytester) -> None:
    (project.path / "pyproject.toml").unlink()
    found = run(project, "def test_it(celery_fleet): ...")
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(
        [
            "*celery_fleet: there is no app: import yours at the top of the test module, or name it in"
            " [[]tool.celery-health]:",
            "*app = *",
        ]
    )


@slow
def test_an_app_that_the_test_has_not_imported(project: pytest.Pytester) -> None:
    """The contract names it; what it reads from the environment is there."""
    project.makepyfile(
        shop=SHOP.replace(
            'os.environ.get("REDIS_URL", "redis://:s3cret@broker.invalid/0")', 'os.environ["REDIS_URL"]'
        )
    )
    test = "def test_it(celery_fleet):\n    from shop import backlog\n"
    test += '    celery_fleet.queue("billing", ready=2)\n    assert backlog("billing") == 2\n'
    run(project, test).assert_outcomes(passed=1)


FACTORY = """
import os
from celery import Celery

def create_app():
    app = Celery("made")
    app.config_from_object({"SHOP_BROKER_URL": "redis://:s3cret@broker.invalid/0"}, namespace="SHOP")
    return app
"""


@slow
@pytest.mark.parametrize("named", ["factory", "hook"])
def test_an_app_that_is_made(project: pytest.Pytester, named: str) -> None:
    project.makepyfile(making=FACTORY)
    if named == "factory":
        project.makepyprojecttoml('[tool.celery-health]\napp = "making:create_app()"\n')
    else:
        (project.path / "pyproject.toml").unlink()
        project.makeconftest(
            """
            def pytest_celery_health_app(target):
                from making import create_app
                return create_app()
            """
        )
    test = """
        from celery import current_app

        def test_it(celery_fleet):
            celery_fleet.worker("w1@sim")
            assert current_app.main == "made"
            assert current_app.control.ping(timeout=20, limit=1)

        def test_another(celery_fleet):
            assert celery_fleet.app.control.ping(timeout=0.1) == []
        """
    run(project, test).assert_outcomes(passed=2)


@slow
def test_a_broker_by_name(project: pytest.Pytester) -> None:
    found = run(
        project,
        """
        import pytest
        import shop

        @pytest.mark.parametrize("celery_fleet", ["fakeredis", "memory", "redis-server"], indirect=True)
        def test_it(celery_fleet):
            celery_fleet.worker("w1@sim")
            assert shop.app.control.ping(timeout=20, limit=1)
            assert celery_fleet.broker.startswith(("fakeredis", "memory", "redis"))

        @pytest.mark.parametrize("celery_fleet", ["rabbit"], indirect=True)
        def test_no_such(celery_fleet): ...
        """,
    )
    found.assert_outcomes(passed=3, errors=1)
    found.stdout.fnmatch_lines(
        ["*celery_fleet: 'rabbit' is no broker of the sandbox; there are valkey, redis-server, fakeredis, *"]
    )


@slow
def test_the_broker_of_the_contract(project: pytest.Pytester) -> None:
    project.makepyprojecttoml(CONTRACT + SANDBOX + 'broker = "memory"\nworkers = 0\n')
    run(project, 'def test_it(celery_fleet): assert celery_fleet.broker == "memory"').assert_outcomes(
        passed=1
    )


@slow
def test_it_works_in_a_health_run(project: pytest.Pytester) -> None:
    found = run(project, own_run.MARKED + STUCK.replace("THRESHOLD", "300"), "--celery-health")
    found.assert_outcomes(passed=1)


@slow
def test_it_refuses_a_live_target(project: pytest.Pytester) -> None:
    found = own_run.run_live(project, CONTRACT, STUCK.replace("THRESHOLD", "300"))
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(
        ["*celery_fleet: it needs a broker of its own to send to; the target staging is only looked at"]
    )


@slow
def test_an_app_that_does_not_load(project: pytest.Pytester) -> None:
    project.makepyprojecttoml('[tool.celery-health]\napp = "shop:ap"\n')
    found = run(project, "def test_it(celery_fleet): ...")
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["*celery_fleet: shop has no 'ap'; did you mean 'app'?"])


@slow
def test_nothing_of_the_broker_is_left(project: pytest.Pytester) -> None:
    found = run(
        project,
        """
        from pathlib import Path
        import shop

        def test_it(celery_fleet, request):
            from pytest_celery_health.session import run_of
            Path("folder").write_text(str(run_of(request.config).brokers._running[""].folder))
            celery_fleet.worker("w1@sim")
            assert shop.app.control.ping(timeout=20, limit=1)
        """,
    )
    found.assert_outcomes(passed=1)
    assert not Path((project.path / "folder").read_text()).exists()
