"""Messages of tasks, as a client of the app would send them, without a client."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any


def headers_of(name: str, id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
    """What Celery puts into the headers of a task's message."""
    return {
        "lang": "py",
        "task": name,
        "id": id,
        "root_id": id,
        "parent_id": None,
        "group": None,
        "shadow": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": repr(tuple(args)),
        "kwargsrepr": repr(dict(kwargs)),
        "origin": f"{os.getpid()}@celery-health",
    }


def body_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """What Celery puts into its body."""
    return [list(args), dict(kwargs), {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]


def new_id() -> str:
    """An id for a task."""
    # Not uuid4, for which tests like to substitute a constant.
    text = secrets.token_hex(16)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
