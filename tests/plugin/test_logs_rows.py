"""Rows of `logs` in a run: what they print, and that they share their drills with rows of `alerts`."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project

ROW = '[tool.celery-health.check.logs]\nuse = "logs"\n'
APP = """
import logging, logging.config
from celery import Celery, signals
app = Celery("shop")
logger = logging.getLogger("shop.orders")

@app.task(name="shop.pack")
def pack(): ...

@signals.setup_logging.connect
def set_up(**_):
    logging.config.dictConfig({{
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {{"console": {{"class": "logging.StreamHandler"}}}},
        "root": {{"handlers": ["console"], "level": "INFO"}},
        "loggers": {{"shop.orders": {{"propagate": {propagate}}}}},
    }})
"""
TABLE = ["logs:", "logger * written in  console (stderr)", "celery.app.trace and * both * INFO"]


def write(project: Project, *rows: str, propagate: bool = True) -> None:
    project.pytester.makepyfile(shop=APP.format(propagate=propagate))
    project.contract(*rows)


def test_a_red_row_prints_the_table(project: Project) -> None:
    write(project, ROW, propagate=False)
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "logs:",
            "logger * written in  console (stderr)",
            "shop.orders  *  both        -",
            "celery.app.trace and * both * INFO",
            "1 check: 1 unhealthy · 0 looks, 0 B",
            "FAILED pyproject.toml::logs[[]sandbox[]] - shop.orders reaches no handler: shop.orders does not"
            " propagate, and no handler is there; wanted one that takes WARNING and above",
        ]
    )


@pytest.mark.slow
def test_a_green_row_prints_it_when_asked(project: Project) -> None:
    write(project, ROW)
    result = project.run()
    assert result.ret == 0
    result.stdout.no_fnmatch_line("logger *")
    result = project.run("-v")
    result.stdout.fnmatch_lines(TABLE)


@pytest.mark.slow
def test_rows_of_one_pool_share_what_was_seen(project: Project) -> None:
    row = '[tool.celery-health.check.{}]\nuse = "logs"\nmust_reach = {{ {} = ["shop.orders"] }}\n'
    alerts = '[tool.celery-health.check.alerts]\nuse = "alerts"\nends = []\nmust_reach.log = ["raises"]\n'
    write(project, row.format("one", "console"), row.format("two", "sentry"), alerts)
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "3 checks: 2 healthy, 1 unhealthy · 0 looks, 0 B",
            "FAILED *two* - shop.orders never reaches sentry, only console (stderr); wanted WARNING and *",
        ]
    )


@pytest.mark.slow
def test_a_handler_that_hangs_is_unknown_and_ends(project: Project) -> None:
    hangs = """
class Hangs(logging.Handler):
    def emit(self, record):
        import threading
        if "tries shop" in record.getMessage():
            threading.Event().wait()

logging.root.addHandler(Hangs())
app.conf.worker_hijack_root_logger = False
"""
    project.pytester.makepyfile(shop=APP.partition("@signals")[0] + hangs)
    project.contract(ROW)
    result = project.run()
    assert result.ret == 6
    result.stdout.fnmatch_lines(["ERROR *logs* - cannot tell: logs: *waited in vain for*"])
