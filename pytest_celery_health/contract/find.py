"""Which contract counts: the nearest at or above what pytest was asked to run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pytest_celery_health.contract.model import ContractError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: How many folders down a contract may be.
_DEEP = 4


def find(named: Sequence[Path], cwd: Path) -> Path | None:
    """The nearest pyproject.toml with `[tool.celery-health]` at or above `named`, or `cwd` if none is named.

    Raises ContractError when the named paths lead to different contracts.
    """
    found: dict[Path, Path] = {}
    for path in named or [cwd]:
        contract = _above((cwd / path).resolve())
        if contract is not None:
            found.setdefault(contract, path)
    if len(found) > 1:
        ways = ", ".join(f"{path} leads to {contract}" for contract, path in found.items())
        remedy = "name it with --celery-health-contract, or run each by itself"
        raise ContractError([f"{ways}: one run has one contract; {remedy}"])
    return next(iter(found), None)


def _above(path: Path) -> Path | None:
    for folder in (path, *path.parents):
        candidate = folder / "pyproject.toml"
        if candidate.is_file() and _is_contract(candidate):
            return candidate
    return None


def below(folder: Path) -> list[Path]:
    """The contracts in the folders below, not too deep; none of hidden folders and environments."""
    found = []
    for name, folders, files in os.walk(folder):
        at = Path(name)
        if "pyvenv.cfg" in files or len(at.relative_to(folder).parts) == _DEEP:
            folders.clear()
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each != "node_modules")
        if at != folder and "pyvenv.cfg" not in files and _is_contract(at / "pyproject.toml"):
            found.append(at / "pyproject.toml")
    return found


def misspelt(whole: Mapping[str, Any]) -> str:
    """The table that was meant to be `[tool.celery-health]`, or ""."""
    tool = whole.get("tool")
    names = tool if isinstance(tool, dict) else {}
    near = get_close_matches("celery-health", [*names, *whole], n=1, cutoff=0.8)
    return "".join(f"tool.{name}" if name in names else name for name in near)


def _is_contract(path: Path) -> bool:
    """Whether it is one, or means to be: reading it says what is wrong."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    try:
        whole = tomllib.loads(content.decode())
    except ValueError:
        return b"celery-health" in content
    tool = whole.get("tool")
    return (isinstance(tool, dict) and "celery-health" in tool) or bool(misspelt(whole))
