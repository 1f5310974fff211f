from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_celery_health.project.info import AppSpec

Write = Callable[..., AppSpec]


@pytest.fixture
def project(tmp_path: Path) -> Write:
    """Writes a project's files and says where its app is: `project("shop", {"shop.py": ...})`."""

    def write(app: str, files: dict[str, str], **spec: object) -> AppSpec:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
        return AppSpec(app, tmp_path, **spec)  # type: ignore[arg-type]

    return write
