"""`file:PATH`: a file that is touched."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from stat import S_ISDIR

from pytest_celery_health.facts import Beat, Unseen
from pytest_celery_health.observe.context import Context


def read(context: Context, rest: str, url: str) -> Beat | Unseen:
    """The file's mtime. A path that is not absolute is one of the contract's folder."""
    del url
    spec = context.target.spec
    path = (spec.root if spec else Path()) / Path(rest).expanduser()
    try:
        found = path.stat()
    except FileNotFoundError:
        return Unseen(f"no file {path}")
    except OSError as error:
        return Unseen(f"{error.strerror}: {path}")
    if S_ISDIR(found.st_mode):
        return Unseen(f"{path} is a directory; wanted a file")
    return Beat(datetime.fromtimestamp(found.st_mtime, timezone.utc), note=f"mtime of {path}")
