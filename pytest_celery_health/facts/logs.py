"""What became of log records in a worker's processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one log handler made of one record.

    handler: its name, as `dictConfig` gives it, or its class. target: "stderr", a file, a host, or "".
    level: of the record as the handler saw it.
    text: what was written, as far as the handler formats; brings: otherwise the record's own attributes.
    error: why it was not written, such as "KeyError: 'task_name'". told: whether that was printed anywhere.
    refused: why the handler did not take it, such as "it takes ERROR and above".
    """

    handler: str
    target: str = ""
    level: str = ""
    text: str = ""
    brings: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    told: bool = True
    refused: str = ""

    @property
    def taken(self) -> bool:
        return not self.error and not self.refused

    @property
    def title(self) -> str:
        """ "console (stderr)"."""
        return f"{self.handler} ({self.target})" if self.target else self.handler


@dataclass(frozen=True, slots=True)
class LogLine:
    """A record that was written in a worker, and whom it reached.

    logger: its name; "structlog of MODULE" for an event of structlog, "print" for what a task printed.
    level: at which it was written. own: whether the app's own modules use the logger.
    alike: how many other loggers were not tried, as their records go the same way.
    source: "" for a record of ours; for others, the end of the task at which it was written.
    process: "main" or "child". task, task_id: what the process ran, or "".
    fields: what structlog's event, `extra` or a line of JSON brought.
    lost: why no handler was asked; "" if one was.
    leaked: what it holds of the task before, or "".
    """

    logger: str
    level: str
    own: bool = True
    alike: int = 0
    source: str = ""
    process: str = "child"
    task: str = ""
    task_id: str = ""
    deliveries: tuple[Delivery, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    lost: str = ""
    leaked: str = ""

    @property
    def nobody(self) -> str:
        """Why nobody took it; "" if somebody did."""
        return nobody(self.lost, self.deliveries)


@dataclass(frozen=True, slots=True)
class LogHandler:
    """A log handler that a process of the worker has.

    name, target: as of a `Delivery`. kind: its class. formatter: the class of its formatter, "" for none.
    loggers: those that it is attached to. pids: the processes that have it.
    file: whether it writes to a file.
    rotates: whether it renames its file, as far as processes that share the file do not know of it.
    stock: whether it is a plain stream handler with Python's own formatter.
    stuck: why nobody takes records from its queue; "" if somebody does, or it has none.
    error: how its formatter failed with a record that was written outside of tasks, for one that is gone.
    """

    name: str
    target: str = ""
    kind: str = "StreamHandler"
    level: str = ""
    formatter: str = ""
    loggers: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    file: bool = False
    rotates: bool = False
    stock: bool = False
    stuck: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Logs:
    """Logging as a worker has it, and what became of records there.

    handlers: of all its processes. gone: those that the app had set up before the worker did.
    """

    lines: tuple[LogLine, ...] = ()
    handlers: tuple[LogHandler, ...] = ()
    gone: tuple[LogHandler, ...] = ()
    pool: str = ""


def nobody(lost: str, deliveries: tuple[Delivery, ...]) -> str:
    """Why nobody took a record, "" if somebody did: from why no handler was asked, and what handlers did."""
    if lost or any(delivery.taken for delivery in deliveries):
        return lost
    for delivery in deliveries:
        if delivery.error:
            return f"{delivery.title} cannot write it: {delivery.error}"
    return "; ".join(dict.fromkeys(f"{each.title}: {each.refused}" for each in deliveries))
