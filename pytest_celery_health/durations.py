"""Durations as a contract writes them: seconds, "90s", "2min", "1h30min" or a timedelta."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TypeAlias

Duration: TypeAlias = float | str | timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)")


def seconds(value: Duration) -> float:
    """Seconds in `value`.

    Raises ValueError when it is negative, not finite or not a duration.
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, bool):
        raise ValueError(f"{value!r} is not a duration; write seconds or '90s', '2min', '1h30min'")
    elif isinstance(value, (int, float)):
        result = float(value)
    else:
        text = value.strip()
        parts = _PART.findall(text)
        rest = _PART.sub("", text).strip()
        if not parts or rest:
            raise ValueError(f"{value!r} is not a duration; write seconds or '90s', '2min', '1h30min'")
        result = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 <= result < float("inf"):
        raise ValueError(f"{value!r} is not a duration; it must be zero or more, and finite")
    return result


def spell_age(value: float) -> str:
    """How long ago: "90 s ago"; of a negative age, beyond what is spelled as 0 s, "1 s in the future"."""
    ahead = spell(-value) if value < 0 else ""
    return f"{ahead} in the future" if ahead not in ("", "0 s") else f"{spell(max(value, 0.0))} ago"


def spell(value: float) -> str:
    """`value` seconds for a reader: 0.25 s, 90 s, 2 min, 1 h 30 min, 3 d 4 h."""
    if value < 0:
        return f"-{spell(-value)}"
    if value < 10:
        return f"{value:.2f}".rstrip("0").rstrip(".") + " s"
    whole = round(value)
    if whole <= 120 and whole % 60:
        return f"{whole} s"
    pieces = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, whole = divmod(whole, size)
        if amount:
            pieces.append(f"{amount} {name}")
    return " ".join(pieces[:2])
