"""Values as plain data, bounded in size, whatever the objects do. Standard library only."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

_LONGEST = 10_000
_LONGEST_REPR = 500
_WIDEST = 50
_DEEPEST = 6


def plain(value: object, depth: int = 0) -> Any:
    """`value` as JSON would hold it: a tuple is a list, an exception its description, the rest its repr."""
    kind = type(value)
    if value is None or kind is bool or kind is int or kind is float:
        return value
    if kind is str:
        return cut(str(value), _LONGEST)
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            pairs = list(value.items())[:_WIDEST]
            return {plain_key(key): plain(each, depth + 1) for key, each in pairs}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [plain(each, depth + 1) for each in list(value)[:_WIDEST]]
    if isinstance(value, BaseException):
        return describe(value)
    return shown(value)


def plain_key(key: object) -> str:
    return key if type(key) is str else shown(key)


def shown(value: object) -> str:
    """The repr of `value`, cut; what it is when its repr raises."""
    try:
        return cut(repr(value), _LONGEST_REPR)
    except Exception as error:  # noqa: BLE001 - it is the user's code
        return f"<{type(value).__qualname__}, whose repr raises {type(error).__name__}>"


def describe(error: BaseException) -> str:
    """The exception's type and words, also when its own `__str__` raises."""
    name = type(error).__name__
    try:
        words = cut(str(error), _LONGEST_REPR)
    except Exception as broken:  # noqa: BLE001 - it is the user's code
        return f"{name}, whose __str__ raises {type(broken).__name__}"
    return f"{name}: {words}" if words else name


def traced(error: BaseException) -> str:
    """The exception's traceback as text."""
    try:
        return cut("".join(traceback.format_exception(error)), _LONGEST)
    except Exception:  # noqa: BLE001 - it is the user's code
        return describe(error)


def cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
