"""Whether the app's module is there, of which nothing is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pkgutil import iter_modules

from pytest_celery_health.contract.values import did_you_mean


def no_module(app: str, folders: Sequence[str]) -> str:
    """Which module of `app` is missing, `folders` being first on the path, reading on from it; or "".

    What a package makes up while it is imported is not seen. Without a colon the last part may be an
    attribute, and is not looked for.
    """
    module, colon, _ = app.partition(":")
    top, *below = module.split(".")
    found = PathFinder.find_spec(top, [*folders, *sys.path])
    if found is None:
        return "" if _is_elsewhere(top) else f"and there is no module {top}{_near(top, '', folders)}"
    name = top
    for part in below if colon else below[:-1]:
        inside = found.submodule_search_locations
        if inside is None:
            return f"and {name} is no package, so there is no module {name}.{part}"
        found = PathFinder.find_spec(f"{name}.{part}", inside)
        if found is None:
            return f"and there is no module {name}.{part}{_near(f'{name}.{part}', f'{name}.', list(inside))}"
        name = f"{name}.{part}"
    return ""


def _is_elsewhere(top: str) -> bool:
    """Whether it is found by what no folder holds, such as an editable install."""
    with suppress(ValueError):
        return find_spec(top) is not None
    return True


def _near(name: str, package: str, folders: Sequence[str]) -> str:
    return did_you_mean(name, [module.name for module in iter_modules(folders, package)])
