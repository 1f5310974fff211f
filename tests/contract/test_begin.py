from __future__ import annotations

import re
from collections.abc import Callable
from textwrap import dedent

from pytest_celery_health import WorkersAnswer
from pytest_celery_health.contract.begin import how_to_begin
from pytest_celery_health.contract.model import Contract


def test_what_it_says_to_paste_is_a_contract(contract: Callable[..., Contract]) -> None:
    pasted = re.search(r"^    \[tool.*?\n\n(?=and )", how_to_begin(), re.DOTALL | re.MULTILINE)

    assert pasted is not None
    found = contract(dedent(pasted.group()))
    assert [(row.name, row.check) for row in found.rows] == [("workers", WorkersAnswer())]
