"""Who consumes what, asked on a connection of its own, in bounded time."""

from kombu import Connection

from styles.app import app

SECONDS = 2


class NobodyConsumesError(Exception):
    pass


def require_consumers(queue="celery"):
    bounds = {"socket_connect_timeout": SECONDS, "socket_timeout": SECONDS, "max_retries": 0}
    with Connection(app.conf.broker_url, connect_timeout=SECONDS, transport_options=bounds) as connection:
        replies = app.control.broadcast(
            "active_queues",
            reply=True,
            timeout=1,
            limit=2,
            connection=connection,
            channel=connection.default_channel,
        )
    consumers = [
        worker
        for reply in replies
        for worker, queues in reply.items()
        if isinstance(queues, list) and any(each["name"] == queue for each in queues)
    ]
    if not consumers:
        raise NobodyConsumesError(f"nobody consumes {queue}")
    return consumers
