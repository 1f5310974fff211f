"""Queues on RabbitMQ and other AMQP 0-9-1 brokers, by kombu's `pyamqp` and `librabbitmq` transports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_celery_health.facts import NOT_ASKED, Queue, Unseen
from pytest_celery_health.observe.queues.base import NO_TIME, Depths, Known, Reader

NOT_FOUND = 404


class AmqpQueues(Reader):
    """A passive declare of each queue: its ready messages and its consumers, or that it does not exist.

    Anything but a passive declare could create the queue or be refused for its arguments.
    """

    drivers = ("amqp",)

    def depths(self, names: Sequence[str], known: Known, *, unacked: bool = False) -> Depths:
        del known
        held = NOT_ASKED
        if unacked:
            held = Unseen("AMQP does not tell what is unacknowledged; ask the management API", never=True)
        channel = self.connection.channel()
        try:
            queues = []
            for name in names:
                queues.append(
                    self._declared(channel, name) if not self.deadline.passed else _blind(name, NO_TIME)
                )
        finally:
            channel.close()
        return Depths(tuple(queues), held)

    def _declared(self, channel: Any, name: str) -> Queue:
        if self.deadline.passed:
            return _blind(name, NO_TIME)
        try:
            _, ready, consumers = channel.queue_declare(queue=name, passive=True)
        except self.connection.channel_errors as error:
            # py-amqp opens the channel again after the broker closed it.
            if getattr(error, "reply_code", None) == NOT_FOUND:
                return Queue(name, ready=0, exists=False, consumers=0)
            return _blind(name, Unseen(f"the broker refused a passive declare of it: {error}"))
        self.received(len(name) + 8)
        return Queue(name, ready=ready, exists=True, consumers=consumers)


def _blind(name: str, why: Unseen) -> Queue:
    return Queue(name, ready=why, exists=why, consumers=why)
