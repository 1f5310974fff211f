from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from pytest_celery_health.project.info import AppSpec

Write = Callable[..., AppSpec]


def write(root: Path, app: str, files: Mapping[str, str], **spec: object) -> AppSpec:
    """Writes a project's files and says where its app is: `write(root, "shop", {"shop.py": ...})`."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    return AppSpec(app, root, **spec)  # type: ignore[arg-type]


@pytest.fixture
def project(tmp_path: Path) -> Write:
    """`write` in a folder of the test's own: `project("shop", {"shop.py": ...})`."""
    return partial(write, tmp_path)
