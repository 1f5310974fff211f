from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import SandboxSpec
from pytest_celery_health.sandbox.brokerless import Brokerless

Write = Callable[..., AppSpec]
World = Callable[..., Brokerless]

REPO = Path(__file__).parents[2]
#: A shop, but for its tasks and its handlers.
APP = """
    from celery import Celery
    app = Celery("shop", broker="redis://production.example:6379/0")
    app.conf.imports = ["shop.tasks", "shop.signals"]
"""
SHOP = {"shop/__init__.py": "", "shop/celery.py": APP}


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


@pytest.fixture
def world() -> Iterator[World]:
    """Makes worlds without a broker for apps, with a sandbox's keys: `world(spec, allow=...)`."""
    made: list[Brokerless] = []

    def make(spec: AppSpec, **sandbox: object) -> Brokerless:
        made.append(Brokerless(SandboxSpec(**sandbox), spec))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()
