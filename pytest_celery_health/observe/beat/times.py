"""Times as projects write them."""

from __future__ import annotations

import re
from datetime import date, datetime, timezone

from pytest_celery_health.facts import Unseen

#: An epoch above this is in milliseconds: in seconds it would be the year 5138.
MILLISECONDS_ABOVE = 1e11

#: A heartbeat is a time, so nothing longer is read, let alone shown.
LONGEST = 40

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def moment(value: object, where: str, verb: str = "holds") -> datetime | Unseen:
    """The time that `value` says: ISO 8601, or seconds (or milliseconds) since 1970, which are UTC.

    A time without zone stays without. `where` and `verb` begin what an Unseen says: "key beat", "holds".
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return Unseen(
                f"{where} {verb} something that is not text, as Django's cache writes it:"
                " use call:, and let a function read the cache"
            )
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        text = value.strip().strip("\"'")
        if not _NUMBER.fullmatch(text):
            return _iso(text, value, where, verb)
        value = float(text)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        epoch = value / 1000 if abs(value) > MILLISECONDS_ABOVE else value
        try:
            return datetime.fromtimestamp(epoch, timezone.utc)
        except (ValueError, OverflowError, OSError):
            pass
    return _garbage(value, where, verb)


def _iso(text: str, value: str, where: str, verb: str) -> datetime | Unseen:
    # Python 3.10 reads neither a "Z" nor a fraction of other than three or six digits.
    text = re.sub(r"[zZ]$", "+00:00", text)
    text = re.sub(r"\.(\d+)", lambda found: f".{found[1][:6]:0<6}", text)
    text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text)
    try:
        date.fromisoformat(text)
    except ValueError:
        pass
    else:
        return Unseen(f"{where} {verb} {text}, a day without a time")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return _garbage(value, where, verb)


def _garbage(value: object, where: str, verb: str) -> Unseen:
    if isinstance(value, (str, int, float, type(None))):
        shown = repr(value[: LONGEST + 1] if isinstance(value, str) else value)
        shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
    else:
        shown = f"a {type(value).__name__}"
    return Unseen(f"{where} {verb} {shown}, which is not a time")
