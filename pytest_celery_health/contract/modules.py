"""Whether the app's module is there, of which nothing is imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

from pytest_celery_health.contract.values import did_you_mean

_MAKES_UP = re.compile(rb"__path__|sys\.modules|meta_path")


def no_module(app: str, folders: Sequence[str]) -> str:
    """Which module of `app` is missing, `folders` being first on the path, reading on from it; or "".

    A package may make up modules while it is imported: nothing is said of one whose code speaks of such
    things, nor of one without `__init__.py`, which other folders may add to. Without a colon the last part
    may be an attribute, and is not looked for.
    """
    module, colon, _ = app.partition(":")
    top, *below = module.split(".")
    found = PathFinder.find_spec(top, [*folders, *sys.path])
    if found is None:
        return "" if _is_elsewhere(top) else f"and there is no module {top}{_below(top, folders)}"
    name = top
    for part in below if colon else below[:-1]:
        if _makes_up(found):
            return ""
        inside = found.submodule_search_locations
        if inside is None:
            return f"and {name} is no package, so there is no module {name}.{part}"
        found = PathFinder.find_spec(f"{name}.{part}", inside)
        if found is None:
            return f"and there is no module {name}.{part}{_near(part, list(inside), f'{name}.')}"
        name = f"{name}.{part}"
    return ""


def _is_elsewhere(top: str) -> bool:
    """Whether it is found by what no folder holds, such as an editable install."""
    with suppress(ValueError):
        return find_spec(top) is not None
    return True


def _makes_up(package: ModuleSpec) -> bool:
    if package.origin is None:
        return True
    code = Path(package.origin)
    if code.suffix != ".py":
        return package.submodule_search_locations is None
    try:
        return _MAKES_UP.search(code.read_bytes()) is not None
    except OSError:
        return True


def _below(top: str, folders: Sequence[str]) -> str:
    """In which folder below it is, as in a layout with `src`; else the nearest name."""
    for folder in map(Path, folders):
        for found in (*folder.glob(f"*/{top}.py"), *folder.glob(f"*/{top}/__init__.py")):
            inside = found.relative_to(folder).parts[0]
            setting = f'pythonpath = ["{inside}"] in [tool.pytest.ini_options]'
            return f"; it is in {inside}: install the project, or write {setting}"
    return _near(top, folders)


def _near(name: str, folders: Sequence[str], package: str = "") -> str:
    return did_you_mean(name, [module.name for module in iter_modules(folders)], within=package)
