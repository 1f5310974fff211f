from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from pytest_celery_health.contract.model import Contract
from pytest_celery_health.contract.read import read

TODAY = date(2026, 11, 22)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to write a contract into, and what importing from it changed is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = sys.modules.copy()
    yield tmp_path
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


@pytest.fixture
def contract(project: Path) -> Callable[..., Contract]:
    """Reads a contract from its text, on 2026-11-22."""

    def from_text(text: str, **options: Any) -> Contract:
        path = project / "pyproject.toml"
        path.write_text(dedent(text), encoding="utf-8")
        return read(path, today=TODAY, **options)

    return from_text
