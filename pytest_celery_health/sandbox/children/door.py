"""A door to a worker's main process: others ask through a socket, a thread answers. Standard library only.

The event loop itself may hang in a handler, or in a task.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Seconds that an answer may take.
PATIENCE = 2.0


def serve(path: Path, obey: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Have `obey` answer who asks at `path`, from now on, in a thread of each: one may take its time."""
    path.unlink(missing_ok=True)  # of a worker of this name that is gone
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(8)

    def reply(client: socket.socket) -> None:
        with suppress(OSError, ValueError), client, client.makefile("rw") as lines:
            lines.write(json.dumps(obey(json.loads(lines.readline()))) + "\n")

    def answer() -> None:
        while True:
            with suppress(OSError):
                client, _ = listening.accept()
                threading.Thread(target=reply, args=(client,), daemon=True).start()

    threading.Thread(target=answer, daemon=True).start()


def ask(path: Path, patience: float = PATIENCE, **what: Any) -> dict[str, Any] | None:
    """What is answered at `path`; None when nobody is there any more, or not within `patience` seconds."""
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(patience)
        line.connect(str(path))
        line.sendall(json.dumps(what).encode() + b"\n")
        with line.makefile() as lines:
            said: dict[str, Any] = json.loads(lines.readline())
            return said
    return None
