"""Values that cross the pipe: JSON, and dates that stay dates."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Any


def dump(value: Any) -> str:
    """`value` as JSON. Raises TypeError when it holds something that JSON and dates cannot say."""
    return json.dumps(value, default=_encode)


def _encode(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, date):
        return {"$date": value.isoformat()}
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):  # what a Redis client answers
        return value.decode(errors="replace")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is neither a number, a text nor a date")


def parse(text: str) -> Any:
    """What `dump` wrote."""
    return json.loads(text, object_hook=_decode)


def _decode(found: dict[str, Any]) -> Any:
    if found.keys() == {"$datetime"}:
        return datetime.fromisoformat(found["$datetime"])
    if found.keys() == {"$date"}:
        return date.fromisoformat(found["$date"])
    return found
