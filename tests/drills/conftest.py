"""Projects to drill. Their brokers and workers last as long as pytest does, as a user's do."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox.drills.crew import Drills
from pytest_celery_health.sandbox.spec import SandboxSpec

REPO = Path(__file__).parents[2]
NOWHERE = "redis://production.example:6379"

TINY = f"""
from celery import Celery

app = Celery("tiny", broker="{NOWHERE}/0", backend="{NOWHERE}/1")
app.conf.task_routes = {{"tiny.pay": {{"queue": "payments"}}}}

@app.task(name="tiny.pay")
def pay(order, card="4242"):
    raise AssertionError("a drill does not run what the task would do")

@app.task(name="tiny.late", acks_late=True)
def late():
    pass
"""

ALERTS = """
import urllib.request
from celery import signals

SLACK = "https://hooks.slack.com/services/T1/B2/s3cr3t"
BOUND = {"timeout": 0.3}

@signals.task_failure.connect(weak=False)
def tell_slack(sender, exception, **_):
    import requests  # as late as many a handler does
    requests.post(SLACK, json={"text": f"{sender.name}: {exception}"}, **BOUND).raise_for_status()
"""


@pytest.fixture(scope="session")
def drills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Drills]]:
    """Drills of a project: `TINY` and more code behind it, or a folder. The same asks share workers."""
    made: dict[object, Drills] = {}

    def of(more: str = "", *, root: Path | None = None, **env: str) -> Drills:
        key = (more, root, *sorted(env.items()))
        if key not in made:
            name = "shop.celery:app"
            if root is None:
                root, name = tmp_path_factory.mktemp("project"), "tiny:app"
                (root / "tiny.py").write_text(TINY + textwrap.dedent(more))
            spec = SandboxSpec(redirect_env=("REDIS_URL",))
            made[key] = Drills(spec, AppSpec(name, root, env=env))
        return made[key]

    yield of
    for each in made.values():
        each.close()


@pytest.fixture
def tiny(drills: Callable[..., Drills]) -> Drills:
    """An app without handlers."""
    return drills()


@pytest.fixture
def alerting(drills: Callable[..., Drills]) -> Drills:
    """An app whose failures go to Slack."""
    return drills(ALERTS)
