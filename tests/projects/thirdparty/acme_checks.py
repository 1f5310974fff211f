"""Acme's checks for pytest-celery-health."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from pytest_celery_health import AskQueues, Check, Finding, Snapshot, Unseen


@dataclass(frozen=True)
class NoPoison(Check):
    """A dead-letter queue stays empty.

    queue: its name.
    at_most: messages that may lie in it.
    """

    subject: ClassVar[str] = "queue"

    queue: str
    _: KW_ONLY
    at_most: int = 0

    def __post_init__(self) -> None:
        if self.at_most < 0:
            raise ValueError(f"at_most is {self.at_most}; write 0 or more")

    def asks(self) -> Iterable[AskQueues]:
        yield AskQueues((self.queue,))

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        queues = seen.queues([self.queue])
        if isinstance(queues, Unseen):
            yield Finding.unseen(self.queue, queues)
            return
        for queue in queues:
            if queue.exists is False:
                yield Finding(False, queue.name, "does not exist", "a queue")
                continue
            if isinstance(queue.ready, Unseen):
                yield Finding.unseen(queue.name, queue.ready)
                continue
            yield Finding(
                queue.ready <= self.at_most,
                queue.name,
                f"holds {queue.ready:,} poisoned messages",
                f"at most {self.at_most:,}",
                "each is a task that was rejected for good",
                {f"{queue.name}.ready": queue.ready},
            )
