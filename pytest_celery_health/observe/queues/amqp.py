"""Queues on RabbitMQ and other AMQP 0-9-1 brokers, by kombu's `pyamqp` and `librabbitmq` transports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_celery_health.facts import NOT_ASKED, Queue, Unseen
from pytest_celery_health.observe.queues.base import NO_TIME, Depths, Known, Reader

NOT_FOUND = 404
#: Declares that are sent before the first answer is read, and the types of their arguments.
_AT_ONCE = 200
_DECLARE = "BsbbbbbF"


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
        queues: list[Queue] = []
        at_once = _AT_ONCE
        try:
            while len(queues) < len(names):
                batch = names[len(queues) : len(queues) + at_once]
                if self.deadline.passed:
                    queues.extend(_blind(name, NO_TIME) for name in batch)
                    continue
                declared = self._declared(channel, batch)
                # What follows a refusal in its batch was said in vain.
                refused = any(queue.exists is not True for queue in declared)
                at_once = 1 if refused else min(2 * at_once, _AT_ONCE)
                queues.extend(declared)
        finally:
            channel.close()
        return Depths(tuple(queues), held)

    def taking(self, exchange: str, routing_key: str) -> tuple[str, ...] | Unseen:
        del routing_key
        channel = self.connection.channel()
        try:
            channel.exchange_declare(exchange, "direct", passive=True)
        except self.connection.channel_errors as error:
            if getattr(error, "reply_code", None) == NOT_FOUND:
                return ()
            return Unseen(f"the broker refused a passive declare of it: {error}")
        finally:
            channel.close()
        return Unseen("AMQP does not list the bindings of an exchange")

    def _declared(self, channel: Any, names: Sequence[str]) -> list[Queue]:
        """All of them said before the first answer is read; up to the first that was refused."""
        from amqp import spec

        if hasattr(channel, "send_method"):
            for name in names:
                channel.send_method(
                    spec.Queue.Declare, _DECLARE, (0, name, True, False, False, False, False, {})
                )
        queues = []
        for name in names:
            try:
                if hasattr(channel, "send_method"):
                    _, ready, consumers = channel.wait(spec.Queue.DeclareOk, returns_tuple=True)
                else:
                    _, ready, consumers = channel.queue_declare(queue=name, passive=True)
            except self.connection.channel_errors as error:
                # py-amqp opens the channel again after the broker closed it.
                if getattr(error, "reply_code", None) == NOT_FOUND:
                    queues.append(Queue(name, ready=0, exists=False, consumers=0))
                else:
                    queues.append(
                        _blind(name, Unseen(f"the broker refused a passive declare of it: {error}"))
                    )
                break
            self.received(len(name) + 8)
            queues.append(Queue(name, ready=ready, exists=True, consumers=consumers))
        return queues


def _blind(name: str, why: Unseen) -> Queue:
    return Queue(name, ready=why, exists=why, consumers=why)
