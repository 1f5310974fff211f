"""kombu's `memory://`: no server, and nothing outside one process can reach it."""

from __future__ import annotations

from pathlib import Path

from pytest_celery_health.sandbox.brokers import Launch

LOCAL = "memory://"


def available() -> str:
    """Always there."""
    return ""


def launch(_folder: Path, _password: str) -> Launch:
    """What its clients in this process use."""
    return Launch((), LOCAL, "cache+memory://", {"polling_interval": 0.01})


def answers(_launch: Launch) -> str:
    """Always."""
    return "memory"


def port_was_taken(_log: str) -> bool:
    """Never."""
    return False
