"""A broker with an app that sends to it, and what readers of queues and beat make of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from celery import Celery

from pytest_celery_health import AskQueues, Queue, Queues, Snapshot, Unseen, Workers
from pytest_celery_health.facts import Ask
from pytest_celery_health.observe import queues
from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.observe.connect import Link
from pytest_celery_health.observe.context import Context
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.target import Target
from pytest_celery_health.project.info import AppInfo

NOBODY = Workers()
INFO = AppInfo("fleet", "5.7.0", "", queues=("celery",))


class Scene:
    """`conf` is the app's, and for its workers too."""

    def __init__(self, url: str, **conf: Any) -> None:
        self.url = url
        self.conf: Mapping[str, Any] = conf
        self.app = Celery("fleet", broker=url, set_as_current=False)
        self.app.conf.update(conf)

    def close(self) -> None:
        self.app.close()

    def send(
        self, queue: str, times: int = 1, task: str = "fleet.nap", args: Any = (0,), **options: Any
    ) -> None:
        """Messages in `queue`, sent as the app would."""
        with self.app.producer_pool.acquire(block=True) as producer:
            for _ in range(times):
                self.app.send_task(task, args, queue=queue, producer=producer, **options)

    def declare(self, queue: str) -> None:
        """What a worker does before it consumes `queue`."""
        with self.app.connection_for_write() as connection:
            self.app.amqp.queues.select_add(queue)(connection.default_channel).declare()

    def target(self, **changes: Any) -> Target:
        options = self.conf.get("broker_transport_options", {})
        exchange = self.conf.get("control_exchange", "celery")
        fields = {"options": options, "app": INFO, "control_exchange": exchange, **changes}
        return Target("scene", self.url, **fields)

    def look(self, *asks: Ask, deadline: float = 5.0, **target: Any) -> Snapshot:
        """A whole look, as a health run does it."""
        return look(self.target(**target), asks, deadline=deadline).snapshot

    @contextmanager
    def context(
        self, workers: Workers | Unseen = NOBODY, *, deadline: float = 5.0, **target: Any
    ) -> Iterator[Context]:
        """What a reader gets, when these workers answered."""
        end = Deadline(deadline)
        link = Link(self.target(**target), end)
        try:
            yield Context(link.target, link.open(), end, workers, lambda _: workers)
        finally:
            link.close()

    def read(self, *names: str, workers: Workers | Unseen = NOBODY, app: Any = INFO, **ask: Any) -> Queues:
        """Queues alone, when these workers answered."""
        target = {"event_exchange": self.conf.get("event_exchange", "celeryev")}
        with self.context(workers, app=app, **target) as context:
            found = queues.read(context, [AskQueues(names, **ask)])
        assert isinstance(found, Queues)
        return found

    def queue(self, name: str, **context: Any) -> Queue:
        (found,) = self.read(name, **context).seen
        return found
