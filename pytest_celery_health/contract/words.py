"""The small grammars of a contract: names of rows and targets, the app, and values that a check refuses."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

_BREAKS = ("[", "]", "::")


def name_complaint(name: str) -> str:
    """Why `name` cannot be part of a test's id, or ""."""
    if not name.strip() or not name.isprintable():
        return "its name is empty or holds an unprintable sign; rename it"
    for sign in _BREAKS:
        if sign in name:
            return f'its name holds "{sign}", which would break test ids; rename it'
    return ""


def app_complaint(app: str) -> str:
    """Why `app` is neither what `celery -A` takes nor a factory, reading on from it, or ""."""
    module, colon, attribute = app.partition(":")
    if "/" in app or "\\" in app or module.endswith(".py"):
        dotted = app.replace("\\", "/").removesuffix(".py").strip("./").replace("/", ".")
        return f'a path; write a module, "{dotted}:app" say'
    if not colon and app.endswith("()"):
        module, _, function = app.rpartition(".")
        return f'which has no colon before the factory; write "{module}:{function}"' if module else _GRAMMAR
    name = attribute.removesuffix("()")
    right = _is_dotted(module) and (not colon or _is_dotted(name))
    return "" if right else _GRAMMAR


_GRAMMAR = 'which is no app; write "package.module:app", or a factory, "package.module:create_app()"'


def blame(
    cls: Any,
    given: Mapping[str, Any],
    needed: Mapping[str, Sequence[Any]],
    spoilt: Collection[str],
) -> tuple[Any, list[tuple[str, str]]]:
    """An instance of `cls`, or None and what it refuses, each with the key to blame ("" if several may be).

    `__post_init__` raises at its first complaint and need not name a field. The field to blame is the one
    without which the complaint is gone; what is complained about after that is found without it, or, where
    the field is `needed`, with the first of its values there that serves. Of complaints about a field that is
    left out, or `spoilt`, nothing is said: they follow from the first.
    """
    left = dict(given)
    refused: list[tuple[str, str]] = []
    for key in needed.keys() - given.keys():
        if not _serve(cls, left, key, needed[key]):
            return None, refused
    out = {*spoilt, *(needed.keys() - given.keys())}
    while True:
        made, complaint = _attempt(cls, left)
        if not complaint:
            return (None if refused or out else made), refused
        culprits = [
            key
            for key in left
            if key in needed or _attempt(cls, {k: v for k, v in left.items() if k != key})[1] != complaint
        ]
        named = sorted((key for key in left if _names(complaint, key)), key=complaint.index)
        culprit = next((key for key in named if key in culprits), "")
        about = _opening(complaint) if culprit else complaint
        if any(_names(about, key) for key in out):
            return None, refused
        if not culprit and len(optional := [key for key in culprits if key not in needed]) == 1:
            culprit = optional[0]
        refused.append((culprit, complaint if named or not culprit else f"{culprit}: {complaint}"))
        if not culprit:
            return None, refused
        if culprit not in needed:
            del left[culprit]
        elif not _serve(cls, left, culprit, needed[culprit]):
            return None, refused
        out.add(culprit)


def _serve(cls: Any, given: dict[str, Any], key: str, values: Sequence[Any]) -> bool:
    """Give `key` the first of `values` that is not complained about."""
    for value in values:
        given[key] = value
        if not _names(_opening(_attempt(cls, given)[1]), key):
            return True
    return False


def _opening(complaint: str) -> str:
    """What is wrong. Why, and what is right, may be said in words that are other fields' names."""
    return re.split("[;,]", complaint, maxsplit=1)[0]


def _attempt(cls: Any, given: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        return cls(**given), ""
    except ValueError as exc:
        return None, str(exc) or "is refused"
    except Exception as exc:  # noqa: BLE001 - a third party's check may raise anything
        return None, f"{type(exc).__name__}: {exc}"


def _names(text: str, key: str) -> bool:
    return re.search(rf"\b{re.escape(key)}\b", text) is not None


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
