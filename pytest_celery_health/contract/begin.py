"""What `--celery-health` says to those who have not begun."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

from pytest_celery_health.contract.find import below
from pytest_celery_health.contract.locate import shown
from pytest_celery_health.contract.model import Contract

_ROW = """\
[tool.celery-health.check.workers]  # a promise: a worker of this app answers
use = "workers"
"""
FIRST_TABLE = f"""\
[tool.celery-health]
app = "yourproject.celery:app"      # what you give to celery -A

{_ROW}"""

_TEXT = """\
Begin with this in {file}:

{table}
and run pytest --celery-health again: it starts a broker, a worker and your app in a sandbox. Or mark a test:

    @pytest.mark.celery_health(WorkersAnswer())     # from pytest_celery_health import WorkersAnswer
    def test_ready(): ...
"""


def how_to_begin() -> str:
    """A first contract to paste, and a first test."""
    return _TEXT.format(file="pyproject.toml", table=indent(FIRST_TABLE, "    "))


def nothing_to_judge(contract: Contract, here: Path) -> str:
    """Why a run in the folder `here`, without a row and without a marked test, judged nothing."""
    if contract.declared:
        file = shown(contract.path)
        return (
            f"{file} has no row, and no test marked celery_health was found, so there is nothing to judge.\n"
            + _TEXT.format(file=file, table=indent(_ROW, "    "))
        )
    lead = "No contract and no test marked celery_health was found, so there is nothing to judge."
    return f"{lead}\n{_elsewhere(here) or how_to_begin()}"


def no_app(contract: Contract, here: Path) -> str:
    """Why the sandbox cannot be started: it is not said what the app is."""
    if not contract.declared:
        return f"no contract says what the app is.\n{_elsewhere(here) or how_to_begin()}"
    targets = [f"--celery-health-target={name}" for name in contract.targets]
    other = f", or look at a target: {' or '.join(targets)}" if targets else ""
    return (
        f"{shown(contract.path)} does not say what the app is, which the sandbox starts:"
        f' write app = "yourproject.celery:app" in [tool.celery-health]{other}'
    )


def _elsewhere(here: Path) -> str:
    """Where below `here` there are contracts, and how each is run; "" where there are none."""
    folders = [path.parent.relative_to(here) for path in below(here)]
    if not folders:
        return ""
    runs = "\n".join(f"    pytest {folder} --celery-health" for folder in folders)
    return f"There is a contract below this folder; one run has one contract:\n\n{runs}\n"
