"""Bounds of time that hold on a machine that others load as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from pytest_celery_health.observe import clock

T = TypeVar("T")


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
