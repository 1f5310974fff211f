"""A function of the project is called with its app loaded, and its answer comes back as it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from pytest_celery_health.project.describe import call
from pytest_celery_health.project.info import AppSpec, ProjectError

Write = Callable[..., AppSpec]

APP = """
    from datetime import date, datetime, timedelta, timezone
    from celery import Celery, current_app
    app = Celery("shop")
"""


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("datetime(2026, 1, 2, 3, 4, 5, 6)", datetime(2026, 1, 2, 3, 4, 5, 6)),
        (
            "datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2)))",
            datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        ),
        ("date(2026, 1, 2)", date(2026, 1, 2)),
        ("1767312000.5", 1767312000.5),
        ("b'2026-01-02T00:00:00+00:00'", "2026-01-02T00:00:00+00:00"),
        ("None", None),
        ("{'ok': True, 'seen': [1, 'two']}", {"ok": True, "seen": [1, "two"]}),
        ("current_app.main", "shop"),
    ],
)
def test_what_it_returns(project: Write, expression: str, value: Any) -> None:
    spec = project("shop", {"shop.py": APP + f"    def last_beat():\n        return {expression}\n"})
    assert call(spec, "shop:last_beat", timeout=10) == value


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 1 / 0", "shop:beat() failed: ZeroDivisionError: division by zero\n  at shop.py:"),
        ("return object()", "shop:beat() failed: TypeError: object is neither a number, a text nor a date"),
        ("raise SystemExit(3)", "shop:beat() failed: SystemExit: 3"),
    ],
)
def test_what_goes_wrong(project: Write, body: str, said: str) -> None:
    spec = project("shop", {"shop.py": APP + f"    def beat():\n        {body}\n"})
    with pytest.raises(ProjectError) as caught:
        call(spec, "shop:beat", timeout=10)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("shop:bat", "shop:bat() failed: shop has no 'bat'; did you mean 'beat'?"),
        ("shop:wait", "shop:wait() failed: TypeError: it is async; wrap it in a function that is not"),
        (
            "shop:needs",
            "shop:needs() failed: TypeError: needs() missing 1 required positional argument: 'what'",
        ),
        ("shop", "shop() failed: 'shop' is not of the form package.module:name"),
    ],
)
def test_what_cannot_be_called(project: Write, function: str, said: str) -> None:
    functions = "    def beat(): ...\n    async def wait(): ...\n    def needs(what): ...\n"
    with pytest.raises(ProjectError) as caught:
        call(project("shop", {"shop.py": APP + functions}), function, timeout=10)
    assert str(caught.value).splitlines()[0] == said


def test_one_that_ends_its_process(project: Write) -> None:
    ends = "    def beat():\n        import os\n        print('over', flush=True)\n        os._exit(0)\n"
    with pytest.raises(ProjectError, match=r"^shop:beat ended its process, which exited with 0: over$"):
        call(project("shop", {"shop.py": APP + ends}), "shop:beat", timeout=10)


def test_one_that_does_not_answer(project: Write) -> None:
    slow = "    def beat():\n        import time\n        time.sleep(60)\n"
    with pytest.raises(
        ProjectError, match=r"^shop:beat did not answer within 2 s; it was at .*shop\.py:\d+ in beat"
    ):
        call(project("shop", {"shop.py": APP + slow}), "shop:beat", timeout=2)


def test_django_is_set_up(project: Write) -> None:
    files = {
        "settings.py": 'SECRET_KEY = "x"\nINSTALLED_APPS = ["orders"]\n',
        "shop.py": "from celery import Celery\napp = Celery('shop', loader='app', fixups=[])\n",
        "orders/__init__.py": "",
        "orders/models.py": "from django.db import models\nclass Order(models.Model): ...\n",
        "health.py": "def count():\n    from orders.models import Order\n    return Order._meta.label\n",
    }
    spec = project("shop", files, env={"DJANGO_SETTINGS_MODULE": "settings"})
    assert call(spec, "health:count", timeout=20) == "orders.Order"


def test_a_sentence_that_more_follows_ends_without_its_full_stop(project: Write) -> None:
    body = "def last_beat():\n        raise RuntimeError('Settings are missing.')\n"
    spec = project("shop", {"shop.py": APP + f"    {body}"})
    with pytest.raises(ProjectError) as failed:
        call(spec, "shop:last_beat", timeout=10)
    assert str(failed.value).splitlines()[0] == "shop:last_beat() failed: RuntimeError: Settings are missing"


def test_of_a_function_that_is_not_there_those_that_are_there_are_named(project: Write) -> None:
    spec = project("shop", {"shop.py": APP + "    def last_beat(): ...\n"})
    with pytest.raises(ProjectError) as failed:
        call(spec, "shop:nosuch", timeout=10)
    assert str(failed.value).endswith("shop has no 'nosuch'; its functions are last_beat")
