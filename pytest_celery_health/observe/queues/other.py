"""Queues of the transports whose depth cannot be read without a risk."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_celery_health.facts import NOT_ASKED, Queue, Unseen
from pytest_celery_health.observe.queues.base import Depths, Known, Reader


class OtherQueues(Reader):
    """Everything Unseen, with the reason."""

    def depths(self, names: Sequence[str], known: Known, *, unacked: bool = False) -> Depths:
        del known
        driver = str(self.connection.transport.driver_type)
        remedy = "; ask CloudWatch" if driver == "sqs" else ""
        blind = Unseen(
            f"the depth of a queue on {driver} is not read: kombu's way of asking could create it{remedy}",
            never=True,
        )
        held = Unseen(f"{driver} does not tell what is unacknowledged", never=True) if unacked else NOT_ASKED
        return Depths(tuple(Queue(name, ready=blind, exists=blind) for name in names), held)
