"""Rows of `publisher` in a run: by contract alone."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import REPO, Project, run

APP = """
from celery import Celery
app = Celery("shop", broker="redis://production.example:6379/0")

@app.task(name="shop.pack")
def pack(order): ...

def place_order():
    pack.delay("o1")
"""
ROW = """
[tool.celery-health.check.checkout]
use = "publisher"
call = "shop:place_order"
answers_within = "1s"
when = ["broker_hangs"]
"""


def test_a_web_request_that_hangs_with_the_broker(project: Project) -> None:
    project.pytester.makepyfile(shop=APP)
    project.contract(ROW)
    result, said = project.with_junit()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "checkout:",
            "world         process  ended     took  *messages  afterwards",
            "healthy       used     returned  *1 * -",
            "broker_hangs  used     hung      1 s  *1 * -",
            "broker_hangs  new      hung      1 s  *1 * -",
            "FAILED pyproject.toml::checkout[[]sandbox[]] - place_order hung for 1 s while the broker hangs,"
            " at shop.py:8; wanted an end within 1 s (socket_timeout *",
        ]
    )
    assert float(said["broker_hangs.used.took"] or 0) == 1


def test_mistakes_in_the_contract_are_told_before_anything_starts(project: Project) -> None:
    project.contract(
        '[tool.celery-health.check.a]\nuse = "publisher"\ncall = "a:b"\nwhen = ["broker_hang"]\n',
        '[tool.celery-health.check.b]\nuse = "publisher"\n',
    )
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        [
            '*when has "broker_hang", which is no fault of a broker; did you mean broker_hangs?',
            "*call is missing; wanted text",
        ]
    )


def test_what_does_not_load_is_unknown(project: Project) -> None:
    project.pytester.makepyfile(shop=APP)
    project.contract(ROW.replace("place_order", "place_ordre"))
    result = project.run()
    assert result.ret == 6
    result.stdout.fnmatch_lines(
        [
            "ERROR *checkout* - cannot tell: loading shop:place_ordre failed: shop has no 'place_ordre';"
            " did you mean 'place_order'?*"
        ]
    )


@pytest.mark.slow
def test_the_guide_is_red() -> None:
    done = run(REPO / "tests" / "projects" / "guide", "pyproject.toml::checkout[sandbox]")
    assert done.returncode == 1, done.stdout
    for line in (
        "place_order hung for 3 s while the broker hangs, at shop/orders.py:5; wanted an end within 3 s",
        "place_order hung for 3 s while the broker is slow, at shop/orders.py:5; wanted an end within 3 s",
    ):
        assert line in done.stdout


@pytest.mark.slow
def test_the_shop_is_green() -> None:
    done = run(REPO / "examples" / "shop", "-v", "pyproject.toml::checkout[sandbox]")
    assert done.returncode == 0, done.stdout
    assert "1 check: 1 healthy" in done.stdout
    assert "WARNED" not in done.stdout
