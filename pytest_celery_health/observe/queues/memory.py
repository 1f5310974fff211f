"""Queues of kombu's `memory` transport, which live in this process only."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_celery_health.facts import NOT_ASKED, Queue, Unseen
from pytest_celery_health.observe.queues.base import Depths, Known, Reader


class MemoryQueues(Reader):
    """A passive declare of each queue."""

    drivers = ("memory",)

    def depths(self, names: Sequence[str], known: Known, *, unacked: bool = False) -> Depths:
        del known
        channel = self.connection.default_channel
        queues = []
        for name in names:
            try:
                declared = channel.queue_declare(queue=name, passive=True)
            except self.connection.channel_errors:
                queues.append(Queue(name, ready=0, exists=False))
            else:
                queues.append(Queue(name, ready=declared.message_count, exists=True))
        held = Unseen("memory:// does not tell what is unacknowledged", never=True) if unacked else NOT_ASKED
        return Depths(tuple(queues), held)
