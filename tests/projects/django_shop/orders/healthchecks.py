import dataclasses

from celery import current_app
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable

BOUNDS = {"socket_timeout": 2, "socket_connect_timeout": 2, "max_retries": 0}


@dataclasses.dataclass
class Workers(HealthCheck):
    """Some worker consumes every queue. On a connection of its own: the app's waits for ever."""

    def run(self):
        app = current_app
        options = {**app.conf.broker_transport_options, **BOUNDS}
        try:
            with app.connection_for_read(connect_timeout=2, transport_options=options) as connection:
                replies = app.control.inspect(timeout=1, connection=connection).active_queues()
        except Exception as error:
            raise ServiceUnavailable(f"no broker: {type(error).__name__}") from error
        consumed = {queue["name"] for queues in (replies or {}).values() for queue in queues}
        missing = {app.conf.task_default_queue} - consumed
        if missing:
            raise ServiceUnavailable(f"nobody consumes {', '.join(sorted(missing))}")
