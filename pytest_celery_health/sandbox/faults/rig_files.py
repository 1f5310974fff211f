"""What a world and its workers both know. Standard library only."""

from __future__ import annotations

from pathlib import Path

#: The task that keeps a worker busy.
BUSY_TASK = "celery_health.busy"
#: Of the queues that workers listen to for a fault's sake.
QUEUES = "celery_health."


def door(folder: Path, name: str) -> Path:
    """The socket on which the worker `name` answers."""
    return folder / f"{name}.rig"
