import dataclasses

from celery import current_app
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable

from orders.health import ask_workers


@dataclasses.dataclass
class Workers(HealthCheck):
    """Some worker consumes every queue."""

    def run(self):
        try:
            replies = ask_workers("active_queues")
        except Exception as error:
            raise ServiceUnavailable(f"no broker: {type(error).__name__}") from error
        consumed = {queue["name"] for queues in replies.values() for queue in queues}
        missing = {current_app.conf.task_default_queue} - consumed
        if missing:
            raise ServiceUnavailable(f"nobody consumes {', '.join(sorted(missing))}")
