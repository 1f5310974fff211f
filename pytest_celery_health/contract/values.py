"""TOML values against the annotations of fields: strictly, and in words for a contract's author.

cattrs finds its way through nested types; by itself it would take "5" for 5, and "abc" for a list.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import cattrs
from cattrs.errors import (
    BaseValidationError,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
    StructureHandlerNotFoundError,
)
from cattrs.gen import make_dict_structure_fn

from pytest_celery_health.durations import seconds

_NO_LIST = (str, bytes, Mapping, Enum)


class WrongError(ValueError):
    """A value that its field does not take. Reads on from the key: "is text; wanted ..."."""


def fit(value: Any, wanted: Any, *, show: bool = True) -> Any:
    """`value` as the annotation `wanted` has it: a list becomes a tuple, say.

    Raises BaseValidationError or WrongError, for `complaints`. Unless `show`, the value is in no message.
    """
    return (_OPEN if show else _DISCREET).structure(value, wanted)


def complaints(exc: BaseException, key: str) -> Iterator[str]:
    """What is wrong, a sentence for each value of `key` that is."""
    if isinstance(exc, BaseValidationError):
        located: list[tuple[Exception, Any]] = []
        others: list[Exception] = []
        if isinstance(exc, (ClassValidationError, IterableValidationError)):
            located, others = [*exc.group_exceptions()[0]], exc.group_exceptions()[1]
        for inner, note in located:
            step = getattr(note, "name", None) or note.index
            yield from complaints(inner, f"{key}[{step}]" if isinstance(step, int) else f"{key}.{step}")
        for inner in others:
            yield from complaints(inner, key)
    elif isinstance(exc, ForbiddenExtraKeysError):
        known = [field.name for field in fields(exc.cl) if field.init]
        for extra in sorted(exc.extra_fields):
            near = did_you_mean(extra, known) or f"; keys: {', '.join(known)}"
            yield f"{key}.{extra} is not a key of it{near}"
    elif isinstance(exc, WrongError):
        yield f"{key} {exc}"
    elif isinstance(exc, KeyError):
        yield f"{key} is missing"
    elif isinstance(exc, StructureHandlerNotFoundError):
        yield f"{key} is of a type that TOML cannot write: {exc.type_!r}"
    else:
        yield f"{key}: {exc}"


def did_you_mean(word: str, known: Collection[str], *, quoted: bool = False, within: str = "") -> str:
    """ "; did you mean billing?", or "" if nothing is near. `within` is said before what is near."""
    # Case-insensitively, as "Warn" is nearer to "warn" than difflib thinks.
    by_lower = {name.lower(): name for name in known}
    begun = [name for name in by_lower if len(word) > 2 and name.startswith(word.lower())]
    near = begun[:1] or get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    if not near:
        return ""
    name = within + by_lower[near[0]]
    return f'; did you mean "{name}"?' if quoted else f"; did you mean {name}?"


def describe(wanted: Any) -> str:
    """What TOML is to hold for an annotation, in words."""
    origin, args = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        members = [member for member in args if member is not type(None)]
        if timedelta in members:
            members = [member for member in members if member not in (float, str, timedelta, int)]
            return " or ".join(['seconds or "90s"', *map(describe, members)])
        return " or ".join(dict.fromkeys(map(describe, members)))
    if origin is Literal:
        return " or ".join(_spell(choice) for choice in args)
    if _is_table(wanted):
        return "a table" if not args or args[1] is Any else f"a table of {describe(args[1])}"
    if _is_list(wanted):
        return "a list" if not args or args[0] is Any else f"a list of {describe(args[0])}"
    if _is_enum(wanted):
        return " or ".join(_spell(choice.value) for choice in wanted)
    names = {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        date: "a date",
        datetime: "a date and time",
        time: "a time",
        timedelta: 'seconds or "90s"',
        Path: "text",
        Any: "anything",
    }
    return names.get(wanted, "a table")


def _is_list(wanted: Any) -> bool:
    kind = get_origin(wanted) or wanted
    return isinstance(kind, type) and issubclass(kind, Collection) and not issubclass(kind, _NO_LIST)


def _origin(wanted: Any) -> Any:
    return get_origin(wanted)


def _is_table(wanted: Any) -> bool:
    kind = get_origin(wanted) or wanted
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}..."'
    return str(value)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return describe(type(value))


def _remedy(value: Any, wanted: Any) -> str:
    """The value as it would be right, where that is plain."""
    options = get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)
    if isinstance(value, str):
        if any(option in (int, float) for option in options) and str not in options:
            try:
                float(value)
            except ValueError:
                return ""
            return f"write {value} without quotes"
        if bool in options and value.lower() in ("true", "false"):
            return f"write {value.lower()} without quotes"
        if date in options:
            return "write 2026-12-31, without quotes"
        if any(_is_list(option) and describe(option) == "a list of text" for option in options):
            return f"write [{_spell(value)}]"
    elif isinstance(value, datetime):
        if date in options:
            return f"write {value.date()} without a time"
    elif str in options and timedelta not in options and not isinstance(value, (dict, list)):
        return f'write "{_spell(value)}"'
    return ""


def _wrong(value: Any, wanted: Any, show: bool) -> WrongError:
    if not show:
        remedy = ": write it in quotes" if wanted is str and not isinstance(value, (dict, list)) else ""
        return WrongError(f"is {_kind(value)}; wanted {describe(wanted)}{remedy}")
    if isinstance(value, str) and (get_origin(wanted) is Literal or _is_enum(wanted)):
        choices = get_args(wanted) or [choice.value for choice in wanted]
        near = did_you_mean(value, [choice for choice in choices if isinstance(choice, str)], quoted=True)
        return WrongError(f"is {_spell(value)}; wanted {describe(wanted)}{near}")
    seen = _kind(value)
    if isinstance(value, bool):
        seen = _spell(value)
    elif not isinstance(value, (dict, list)):
        seen = f"{_spell(value)}, {seen}"
    remedy = _remedy(value, wanted)
    return WrongError(f"is {seen}; wanted {describe(wanted)}" + (f": {remedy}" if remedy else ""))


def _is_enum(wanted: Any) -> bool:
    # In Python 3.10 tuple[str, ...] passes for a type, and issubclass refuses it.
    return get_origin(wanted) is None and isinstance(wanted, type) and issubclass(wanted, Enum)


def _converter(show: bool) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)

    def exactly(*kinds: type) -> Callable[[Any, Any], Any]:
        def hook(value: Any, wanted: Any) -> Any:
            if _is_enum(wanted):  # one that is a str or an int too
                return choice(wanted)(value, wanted)
            if type(value) not in kinds:
                raise _wrong(value, wanted, show)
            return wanted(value) if wanted in (float, Path) else value

        return hook

    def number(value: Any, wanted: Any) -> float:
        result: float = exactly(int, float)(value, wanted)
        if not math.isfinite(result):
            raise WrongError(f"is {result}; wanted a finite number")
        return result

    for kind in (str, int, bool, date, datetime, time):
        converter.register_structure_hook(kind, exactly(kind))
    converter.register_structure_hook(Path, exactly(str))
    converter.register_structure_hook(float, number)

    def duration(value: Any, _: Any) -> timedelta:
        if type(value) not in (int, float, str):
            raise _wrong(value, timedelta, show)
        try:
            return timedelta(seconds=seconds(value))
        except ValueError as exc:
            raise WrongError(f"is no duration: {exc}") from None

    converter.register_structure_hook(timedelta, duration)

    def choice(wanted: Any) -> Callable[[Any, Any], Any]:
        def hook(value: Any, _: Any) -> Any:
            for known in get_args(wanted) or wanted:
                plain = known.value if isinstance(known, Enum) else known
                if plain == value and type(plain) is type(value):
                    return known
            raise _wrong(value, wanted, show)

        return hook

    converter.register_structure_hook_factory(lambda t: _origin(t) is Literal or _is_enum(t), choice)

    def union(wanted: Any) -> Callable[[Any, Any], Any]:
        def hook(value: Any, _: Any) -> Any:
            members = [member for member in get_args(wanted) if member is not type(None)]
            nested: list[Exception] = []
            for member in members:
                if member is timedelta and len(members) > 1:
                    continue
                try:
                    return converter.structure(value, member)
                except BaseValidationError as exc:
                    nested.append(exc)
                except WrongError:
                    pass
            raise nested[0] if nested else _wrong(value, wanted, show)

        return hook

    converter.register_structure_hook_factory(lambda t: _origin(t) in (Union, types.UnionType), union)

    def listed(wanted: Any) -> Callable[[Any, Any], Any]:
        kind, args = get_origin(wanted) or wanted, get_args(wanted)
        made: Any = kind if kind in (tuple, list, set, frozenset) else tuple
        fixed = args if kind is tuple and args and args[-1] is not Ellipsis else None

        def hook(value: Any, _: Any) -> Any:
            if type(value) is not list:
                raise _wrong(value, wanted, show)
            if fixed is not None and len(fixed) != len(value):
                raise WrongError(f"has {len(value)} items; wanted {len(fixed)}")
            items = fixed or (args[:1] or (Any,)) * len(value)
            return made(_each(converter, wanted, enumerate(zip(value, items, strict=True))).values())

        return hook

    converter.register_structure_hook_factory(_is_list, listed)

    def table(wanted: Any) -> Callable[[Any, Any], Any]:
        _, item = get_args(wanted) or (str, Any)

        def hook(value: Any, _: Any) -> Any:
            if type(value) is not dict:
                raise _wrong(value, wanted, show)
            return _each(converter, wanted, ((key, (inner, item)) for key, inner in value.items()))

        return hook

    converter.register_structure_hook_factory(_is_table, table)

    def nested(wanted: Any) -> Callable[[Any, Any], Any]:
        fill = make_dict_structure_fn(
            wanted, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
        )

        def hook(value: Any, _: Any) -> Any:
            if type(value) is not dict:
                raise _wrong(value, wanted, show)
            return fill(value, wanted)

        return hook

    converter.register_structure_hook_factory(is_dataclass, nested)
    return converter


def _each(converter: cattrs.Converter, wanted: Any, items: Any) -> dict[Any, Any]:
    done, failed = {}, []
    for index, (value, kind) in items:
        try:
            done[index] = converter.structure(value, kind)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is reported beside its siblings
            exc.__notes__ = [IterableValidationNote("", index, kind)]  # type: ignore[attr-defined,unused-ignore]
            failed.append(exc)
    if failed:
        raise IterableValidationError("", failed, wanted)
    return done


_OPEN, _DISCREET = _converter(show=True), _converter(show=False)
