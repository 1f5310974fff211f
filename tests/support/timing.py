"""Bounds of time that hold on a machine that others load as well."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from pytest_celery_health.observe import clock

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, within: float = 15.0, what: str = "") -> T:
    """What `condition` returns once it is true; fails after `within` seconds."""
    over = clock.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        if clock.monotonic() > over:
            pytest.fail(f"{what or condition} did not come true within {within} s")
        time.sleep(0.01)


def in_time(act: Callable[[], T], within: float, *, times: int = 5) -> T:
    """What `act` returns once it took less than `within` seconds; fails when it was late each time.

    Code that waits for too long does so each time, a loaded machine is late now and then.
    """
    late = []
    for _ in range(times):
        started = clock.monotonic()
        found = act()
        took = clock.monotonic() - started
        if took < within:
            return found
        late.append(f"{took:.2f} s")
    pytest.fail(f"took {', '.join(late)}; wanted less than {within:g} s")


def as_far_as(there: Path, act: Callable[[float], T], *bounds: float) -> tuple[float, T]:
    """The first of these bounds of time in which `act` comes as far as to make the file, and what it returns.

    On a machine under load that takes longer than what is to be bounded.
    """
    for within in bounds:
        there.unlink(missing_ok=True)
        found = act(within)
        if there.exists():
            return within, found
    pytest.fail(f"{there.name} was not reached within {bounds[-1]:g} s")
