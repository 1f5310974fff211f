"""What `--celery-health` says to those who have not begun."""

from __future__ import annotations

from textwrap import indent

FIRST_TABLE = """\
[tool.celery-health]
app = "yourproject.celery:app"      # what you give to celery -A

[tool.celery-health.check.workers]  # a promise: a worker of this app answers
use = "workers"
"""

_TEXT = """\
No contract and no test marked celery_health was found, so there is nothing to judge.
Begin with this in pyproject.toml:

{table}
and run pytest --celery-health again: it starts a broker, a worker and your app in a sandbox. Or mark a test:

    @pytest.mark.celery_health(WorkersAnswer())     # from pytest_celery_health import WorkersAnswer
    def test_ready(): ...
"""


def how_to_begin() -> str:
    """A first contract to paste, and a first test."""
    return _TEXT.format(table=indent(FIRST_TABLE, "    "))
