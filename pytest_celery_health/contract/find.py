"""Which contract counts: the nearest at or above what pytest was asked to run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_celery_health.contract.model import ContractError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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


def _is_contract(path: Path) -> bool:
    try:
        content = path.read_bytes()
        if b"celery-health" not in content:
            return False
        tool = tomllib.loads(content.decode()).get("tool")
        return isinstance(tool, dict) and "celery-health" in tool
    except OSError:
        return False
    except ValueError:
        # Broken, and it means to be a contract: reading it says what is wrong.
        return True
