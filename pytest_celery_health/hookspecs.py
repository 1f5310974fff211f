"""Hooks that a project may implement in its conftest.py."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookspec(firstresult=True)
def pytest_celery_health_app(target: str) -> Any:
    """Say what the app is, for a project that builds it: an app, or a string of Celery's -A grammar.

    It runs in child processes that load its file by path, with the target's name ("sandbox", "staging"),
    and wins over the contract's `app`; None leaves it to the next hook, and the last to the contract. So it
    must be a function of a conftest.py or plugin module, not a method of a registered object, and its file
    must be importable without a running pytest.
    """
