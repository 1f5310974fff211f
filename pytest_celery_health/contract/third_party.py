"""The class that a row's `use` names, one of ours or anybody's by dotted path; and checks that break."""

from __future__ import annotations

import inspect
import sys
import traceback
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from pytest_celery_health.checks import CHECKS, Check
from pytest_celery_health.contract.locate import shown
from pytest_celery_health.contract.model import Row
from pytest_celery_health.contract.values import did_you_mean
from pytest_celery_health.facts import Ask, Snapshot
from pytest_celery_health.masking import mask
from pytest_celery_health.verdict import Finding, Verdict, judge

#: The keys of every row, which no check may have as a field.
COMMON = {"use", *(field.name for field in fields(Row))} - {"name", "check", "line"}


class UnusableError(Exception):
    """No check can be had from a `use`; reads as a sentence."""


def check_class(use: str, folder: Path) -> type[Check]:
    """The check that `use` names. For a dotted path, `folder` is put onto `sys.path`, and stays there.

    Raises UnusableError.
    """
    if use in CHECKS:
        return CHECKS[use]
    module, colon, name = use.partition(":")
    if not colon:
        raise UnusableError(_unknown(use))
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise UnusableError(f'use is "{use}"; write package.module:Class')
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        found = getattr(import_module(module), name, None)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - importing runs anybody's code
        raise UnusableError(
            f'use is "{use}", which cannot be imported: {type(exc).__name__}: {exc}'
        ) from None
    if found is None:
        raise UnusableError(f'use is "{use}", but {module} has no {name}{_near_class(module, name)}')
    complaint = _complaint(found)
    if complaint:
        raise UnusableError(f'use is "{use}", which {complaint}')
    cls: type[Check] = found
    return cls


def field_types(cls: type) -> dict[str, Any]:
    """`typing.get_type_hints`, which in Python 3.10 refuses the line `_: KW_ONLY` of a dataclass."""
    if sys.version_info >= (3, 11):
        return get_type_hints(cls)
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        lines = vars(base).get("__annotations__", {})
        lines = {name: line for name, line in lines.items() if str(line).rpartition(".")[2] != "KW_ONLY"}
        part = type(base.__name__, (), {"__annotations__": lines, "__module__": base.__module__})
        hints |= get_type_hints(part)
    return hints


def asked(check: Check) -> list[Ask]:
    """What `check` asks for; nothing if it breaks, which `judged` tells."""
    try:
        return _asks(check)
    except (Exception, SystemExit):  # noqa: BLE001 - anybody's code
        return []


def judged(check: Check, seen: Snapshot) -> Verdict:
    """What `check` makes of `seen`; unknown if it breaks, as its own bug tells nothing of Celery."""
    try:
        _asks(check)
        return judge(check, seen)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - anybody's code
        cls = type(check)
        ours = CHECKS.values()
        name = cls.__name__ if cls in ours else f"{cls.__module__}:{cls.__qualname__}"
        said = mask(str(error)).partition("\n")[0]
        why = f"{name} broke: {type(error).__name__}: {said}{_place(cls, error)}"
        return Verdict((Finding(None, "", why),))


def _asks(check: Check) -> list[Ask]:
    found = list(check.asks())
    for ask in found:
        if not isinstance(ask, Ask):
            raise TypeError(f"asks yielded {ask!r:.80}; wanted an Ask, such as AskQueues")
    return found


def _place(cls: type, error: BaseException) -> str:
    """Where in the check's own file it broke."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f", at {shown(Path(file))}" + (f":{lines[-1]}" if lines else "")


def _unknown(use: str) -> str:
    near = did_you_mean(use, CHECKS, quoted=True)
    if "." in use and not near:
        module, _, name = use.rpartition(".")
        return f'use is "{use}"; a check of your own is written "{module}:{name}"'
    known = f"; checks: {', '.join(CHECKS)}, or package.module:Class"
    return f'use is "{use}", which is no check{near or known}'


def _near_class(module: str, name: str) -> str:
    known = [key for key, value in vars(sys.modules[module]).items() if inspect.isclass(value)]
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _complaint(found: object) -> str:
    if not (isinstance(found, type) and issubclass(found, Check)):
        return "is not a subclass of pytest_celery_health.Check"
    if "__dataclass_params__" not in vars(found):
        return "is not a dataclass; put @dataclass(frozen=True) above it"
    if inspect.isabstract(found):
        return f"does not define {' and '.join(sorted(found.__abstractmethods__))}"
    names = [field.name for field in fields(found) if field.init]
    clash = sorted(COMMON.intersection(names))
    if clash:
        return f"has a field {clash[0]}, a key that every row has; rename the field"
    if found.subject and found.subject not in names:
        return f'has subject = "{found.subject}", but no such field'
    try:
        field_types(found)
    except Exception as exc:  # noqa: BLE001 - an annotation may be any expression
        return f"has annotations that do not resolve at run time: {exc}"
    return ""
