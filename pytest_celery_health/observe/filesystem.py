"""The folders of a `filesystem://` broker, as they were before a look.

kombu makes a file for each exchange that a queue is bound to, and keeps it; and the mailbox of a worker that
was killed stays bound, so that requests to it gather there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kombu.transport.filesystem import LOCK_EX, lock, unlock

from pytest_celery_health.observe.replies import SENDER, is_leftover


@contextmanager
def put_back(channel: Any, queue: str) -> Iterator[int]:
    """Have nothing left of the reply queue of this name, which is made and asked with inside. Gives the
    number of leftovers of killed looks that were swept before."""
    control = Path(channel.control_folder)
    data = {Path(channel.data_folder_in), Path(channel.data_folder_out)}
    swept = _remove(control, data, is_leftover)
    there = control.exists()
    tables = _tables(control)
    try:
        yield len(swept)
    finally:
        with suppress(OSError):
            _remove(control, data, lambda name: name == queue, keep=tables)
            if not there and control.exists():
                control.rmdir()


def _tables(control: Path) -> frozenset[Path]:
    return frozenset(control.glob("*.exchange"))


def _remove(
    control: Path, data: set[Path], ours: Callable[[str], bool], keep: frozenset[Path] = frozenset()
) -> set[str]:
    """Remove the bindings, the replies and the requests of these reply queues, and return their names.

    The bindings come first: what is answered from now on leads nowhere. `keep` are tables that stay, empty
    or not.
    """
    removed: set[str] = set()
    for table in _tables(control):
        removed |= _unbind(table, ours, keep=table in keep)
    for folder in data:
        for message in folder.iterdir():
            # "TIME_UUID.QUEUE.msg"
            queue = message.name.partition(".")[2].removesuffix(".msg")
            if queue.endswith(".pidbox"):
                queue = _sender(message)
            if ours(queue):
                removed.add(queue)
                message.unlink(missing_ok=True)
    return removed


def _unbind(table: Path, ours: Callable[[str], bool], *, keep: bool) -> set[str]:
    with suppress(FileNotFoundError, ValueError), table.open("r+b", buffering=0) as file:
        lock(file, LOCK_EX)
        try:
            bindings = [(*rest, str(queue)) for *rest, queue in json.loads(file.read())]
            left = [binding for binding in bindings if not ours(binding[-1])]
            if not left and bindings and not keep:
                table.unlink()
            elif left != bindings:
                file.seek(0)
                file.write(json.dumps(left).encode())
                file.truncate()
        finally:
            unlock(file)
        return {binding[-1] for binding in bindings} - {binding[-1] for binding in left}
    return set()


def _sender(message: Path) -> str:
    """The reply queue of the look that sent it, or ""."""
    with suppress(OSError, ValueError, AttributeError):
        return str(json.loads(message.read_bytes())["headers"].get(SENDER, ""))
    return ""
