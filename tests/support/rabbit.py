"""The machine's RabbitMQ, which outlives the tests: what they have made there is taken away by name."""

from __future__ import annotations

from kombu import Connection


def forget(url: str, control: str, *names: str) -> None:
    """Delete the exchanges of remote control by this name, and the queue and the exchange of each other name.

    Who still answers by remote control declares its exchange again: end workers first.
    """
    with Connection(url) as connection:
        channel = connection.default_channel
        for name in names:
            channel.queue_delete(name)
        for exchange in (f"{control}.pidbox", f"reply.{control}.pidbox", *names):
            channel.exchange_delete(exchange)
