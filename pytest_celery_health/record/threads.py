"""Which threads belong together: one, and all that it starts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pytest_celery_health.record.tap import Tap


@contextmanager
def family() -> Iterator[set[threading.Thread]]:
    """This thread and those that it starts meanwhile, and they start."""
    members = {threading.current_thread()}
    _families[id(members)] = members
    try:
        with STARTS.held():
            yield members
    finally:
        del _families[id(members)]


_families: dict[int, set[threading.Thread]] = {}
STARTS = Tap(lambda tap: tap.patch(threading.Thread, "start", _noticed))


def _noticed(original: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    def start(thread: threading.Thread) -> None:
        for members in tuple(_families.values()):
            if threading.current_thread() in members:
                members.add(thread)
        original(thread)

    return start
