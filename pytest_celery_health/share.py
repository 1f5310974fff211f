"""The folder that the processes of one pytest-xdist run have in common."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

_SEEN = "seen.pickle"
_WORKER = "worker-"


class Share:
    """What they leave for each other: a sandbox, what was seen last, and who is at work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sandbox = folder / "sandbox.json"
        self._seen: Any = None
        self._file: tuple[int, int] | None = None

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One process at a time."""
        import fcntl  # which not every platform has

        with (self.folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def put(self, seen: object) -> None:
        """Have the others find `seen`, in place of what was there."""
        part = self.folder / f"{_SEEN}.{os.getpid()}"
        part.write_bytes(pickle.dumps(seen))
        part.replace(self.folder / _SEEN)

    def seen(self) -> Any:
        """What was put last; the same object until another is put. None before."""
        with suppress(FileNotFoundError), (self.folder / _SEEN).open("rb") as file:
            status = os.fstat(file.fileno())
            if self._file != (status.st_ino, status.st_mtime_ns):
                self._seen = pickle.load(file)  # noqa: S301 - our own file in a private folder
                self._file = (status.st_ino, status.st_mtime_ns)
        return self._seen

    def is_first(self, told: str) -> bool:
        """Whether no process has told this before."""
        try:
            (self.folder / f"told-{sha256(told.encode()).hexdigest()}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def enter(self) -> None:
        """Of a process that works: tell its number."""
        (self.folder / f"{_WORKER}{os.getpid()}").touch()

    def workers(self) -> set[int]:
        """The numbers of those that entered. One that has ended may be another process's by now."""
        return {int(path.name.removeprefix(_WORKER)) for path in self.folder.glob(f"{_WORKER}*")}
