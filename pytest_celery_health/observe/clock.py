"""Time that freezegun cannot freeze: a deadline inside frozen time would never end."""

from __future__ import annotations

import time

_MONOTONIC = time.CLOCK_MONOTONIC
_REALTIME = time.CLOCK_REALTIME


def monotonic() -> float:
    """Seconds of the monotonic clock, frozen time or not."""
    return time.clock_gettime(_MONOTONIC)


def epoch() -> float:
    """Seconds since 1970 by this machine's wall clock, frozen time or not."""
    return time.clock_gettime(_REALTIME)


class Deadline:
    """A moment after which nobody waits any more."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = monotonic() + seconds

    def left(self) -> float:
        """Seconds left, 0.0 when there are none."""
        return max(0.0, self._end - monotonic())

    @property
    def passed(self) -> bool:
        return monotonic() >= self._end

    def sooner(self, seconds: float) -> Deadline:
        """A deadline `seconds` from now, but no later than this one."""
        return Deadline(min(seconds, self.left()))
