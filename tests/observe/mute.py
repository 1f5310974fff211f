"""A transport of kombu without fanout, as SQS' is."""

from __future__ import annotations

from kombu.transport import memory


class Transport(memory.Transport):
    driver_type = "mute"
    implements = memory.Transport.implements.extend(exchange_type=frozenset({"direct"}))

    def establish_connection(self) -> None:
        raise ConnectionError("nobody has to connect to what can tell nothing")
