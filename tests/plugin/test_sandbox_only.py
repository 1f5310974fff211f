"""What all rows have in common that try the project in the sandbox."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import LIVE, Project

#: By its `use`, what a row has to say besides.
ROWS = {
    "alerts": 'must_reach."hooks.slack.com" = ["raises"]',
    "handlers": "",
    "logs": "",
    "metrics": 'scrape = "worker"\ngauge = "queue_messages"',
    "probe": 'call = "shop:always"\nunhealthy_when = ["broker_refuses"]',
    "publisher": 'call = "shop:place_order"',
    "survive": "",
}


def row(use: str) -> str:
    return f'[tool.celery-health.check.it]\nuse = "{use}"\n{ROWS[use]}\n'


@pytest.mark.parametrize("use", sorted(ROWS.keys() - {"handlers"}))
def test_a_live_target_is_never_the_place(project: Project, use: str) -> None:
    project.pytester.makepyfile(shop="open('loaded', 'w')\n")
    project.contract(row(use), LIVE)
    assert project.run("--celery-health-target=staging").ret == 5
    assert not (project.pytester.path / "loaded").exists()


@pytest.mark.parametrize(
    ("use", "what"),
    [
        ("alerts", "*"),
        ("handlers", "shop:app failed to load: "),
        ("logs", "*"),
        ("probe", "always: *"),
        ("publisher", "place_order: *"),
        ("survive", "shop:app failed to load: "),
    ],
)
def test_an_app_that_does_not_load_is_unknown(project: Project, use: str, what: str) -> None:
    project.pytester.makepyfile(shop="import os\nos.environ['MISSING']\n")
    project.contract(row(use))
    result = project.run()
    assert result.ret == 6
    result.stdout.fnmatch_lines([f"ERROR *it* - cannot tell: {what}KeyError: 'MISSING'*"])
