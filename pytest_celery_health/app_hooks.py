"""Who says what the app is, besides the contract: the hook `pytest_celery_health_app`, wherever it is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from pytest_celery_health.contract.locate import shown


def app_hooks(config: pytest.Config) -> tuple[str, ...]:
    """Each hook that pytest knows by now as a child process finds it, "FILE:FUNCTION", in pytest's order.

    A conftest.py below the initial ones is known only when its folder was collected. Raises pytest.UsageError
    for a hook that no child could import, and for conftest.py files of which none is below the other.
    """
    impls = config.hook.pytest_celery_health_app.get_hookimpls()
    found = [_place(impl.plugin, impl.function) for impl in reversed(impls)]
    folders = [file.parent for file, _ in found if file.name == "conftest.py"]
    for one, other in pairwise(sorted(folders, key=lambda folder: len(folder.parts))):
        if one not in other.parents:
            names = " and ".join(sorted(shown(folder / "conftest.py") for folder in (one, other)))
            raise pytest.UsageError(
                f"the hook pytest_celery_health_app is in {names}, and one run has one app: keep it in a"
                " conftest.py above both, or run each folder by itself"
            )
    return tuple(f"{file}:{name}" for file, name in found)


def _place(plugin: object, function: object) -> tuple[Path, str]:
    if isinstance(plugin, ModuleType) and plugin.__file__:
        name = next((name for name, value in vars(plugin).items() if value is function), "")
        if name:
            return Path(plugin.__file__), name
    where = getattr(function, "__qualname__", repr(function))
    raise pytest.UsageError(
        f"the hook pytest_celery_health_app is {where}, which no child process can import: make it"
        " a function of a module, at the top level of a conftest.py or of a plugin"
    )
