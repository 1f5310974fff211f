"""Files by which drills and their workers meet. Standard library only."""

from __future__ import annotations

from pathlib import Path

#: What HTTP requests are answered, by host.
ANSWERS = "answers.json"


def records(folder: Path, name: str) -> Path:
    """Where the worker `name` records."""
    return folder / f"{name}.records"


def door(folder: Path, name: str) -> Path:
    """The socket on which the worker `name` answers a drill."""
    return folder / f"{name}.rig"
