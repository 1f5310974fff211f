"""What went wrong in a child, as its parent is told. Standard library only."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from types import TracebackType
from typing import Any


def tell(error: BaseException, job: dict[str, Any]) -> str:
    """The evidence in one line, then where in the user's code."""
    doing = job.get("doing") or f"{job.get('loads') or job['said_by']} failed to load"
    said = " ".join(str(error).split()).removesuffix(".")  # more follows
    if all(kind.__name__ != "LoadError" for kind in type(error).__mro__):
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, ModuleNotFoundError) and _is_own(error.name, job):
        said += f" (looked in {', '.join(job['path'])})"
    verb = " failed" if job.get("doing") else ""
    lines = [f"{doing}{verb}: {said}"]
    lines += [f"  at {frame}" for frame in _frames(error.__traceback__, job["path"])[-3:]]
    return "\n".join(lines)


def _is_own(missing: str | None, job: dict[str, Any]) -> bool:
    named = {re.split("[.:]", name)[0] for name in (job["app"], job.get("function", ""))}
    return (missing or "").partition(".")[0] in named


def _frames(trace: TracebackType | None, path: list[str]) -> list[str]:
    """The user's own frames, the last one last; without any, those of packages outside site-packages."""
    here = os.path.dirname(os.path.abspath(__file__))
    others = (here, "<frozen", *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(others)]
    own = [frame for frame in frames if frame.filename.startswith(tuple(f"{entry}/" for entry in path))]
    return [
        f"{frame.filename.removeprefix(path[0] + '/')}:{frame.lineno} in {frame.name}: {frame.line}"
        for frame in own or frames
    ]
