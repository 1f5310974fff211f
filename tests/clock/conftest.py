from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.observe.conftest import redis_server, redis_url  # noqa: F401
from tests.record.conftest import app, celery_signals, project, root_logger  # noqa: F401

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in Berlin, which needs no time zone's file."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a module as pip would; `origin` is the URL that pip notes of what came from no index."""
    site = tmp_path / "lib" / "site-packages"
    site.mkdir(parents=True)
    monkeypatch.syspath_prepend(site)

    def install(name: str, code: str, *, origin: str = "") -> None:
        (site / f"{name}.py").write_text(code)
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{name}.py,,\n")
        if origin:
            (info / "direct_url.json").write_text(f'{{"url": "{origin}", "dir_info": {{}}}}')

    return install
