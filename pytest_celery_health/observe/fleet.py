"""One round of remote control, by whichever path the transport has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_celery_health.facts import AskQueues, AskWorkers, Unseen, Workers
from pytest_celery_health.observe import remote_control
from pytest_celery_health.observe.clock import Deadline, epoch
from pytest_celery_health.observe.connect import Link
from pytest_celery_health.observe.remote_control_redis import RedisMailbox
from pytest_celery_health.observe.replies import Tally
from pytest_celery_health.observe.target import Target
from pytest_celery_health.observe.worker_clock import with_clocks


class FleetError(Exception):
    """The replies cannot be relied on. The message starts with the evidence; it holds no secret."""


@dataclass(frozen=True)
class Question:
    """What a round asks. `only` the named workers where nobody else matters to any check.

    `names` and `at_least` answers are worth some patience where the broker does not count mailboxes.
    """

    details: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    at_least: int = 0
    only: bool = False

    @classmethod
    def of(cls, workers: Sequence[AskWorkers], queues: Sequence[AskQueues], *, beat: bool) -> Question:
        """The one question that answers all asks; `beat`: whether beat's own ping is asked for."""
        details = {detail for ask in workers for detail in ask.details}
        if queues:
            details.add("active_queues")
        if any(ask.progress_over is not None for ask in queues):
            details.add("stats")
        named = all(ask.names and ask.at_least <= len(ask.names) for ask in workers)
        return cls(
            frozenset(details),
            frozenset(name for ask in workers for name in ask.names),
            max((ask.at_least for ask in workers), default=0),
            bool(workers) and named and not queues and not beat,
        )


@dataclass
class Fleet:
    """The workers behind a connection. Whatever a round has to remove later is put on `stack`."""

    link: Link
    target: Target
    deadline: Deadline
    cancelled: Callable[[], bool]
    stack: ExitStack
    received: Callable[[int], None]
    swept: int = field(default=0, init=False)

    def ask(self, question: Question) -> Workers | Unseen:
        """Who answers, and what.

        Raises FleetError, and what the connection raises.
        """
        connection: Any = self.link.connection
        app = self.target.app
        if app is not None and app.unanswering:
            return Unseen(app.unanswering, never=True)
        if not self.link.can_broadcast:
            return Unseen(f"kombu's {connection.transport.driver_type} has no remote control", never=True)
        if app is not None and app.unreadable:
            question = Question()
        tally = self._round(connection, question)
        self.received(tally.received)
        if app is not None and app.unreadable and tally.mailboxes.get("ping") != 0:
            return Unseen(app.unreadable, never=True)
        if tally.full:
            raise FleetError(f"workers answered with more than {tally.received:,} bytes")
        workers = tally.workers(self._now(connection, question.details))
        missing = question.names - {worker.name for worker in workers.answered} - set(workers.beats)
        if missing and connection.transport.driver_type == "amqp":
            held = remote_control.held_mailboxes(connection, self.target.control_exchange, missing)
            workers = replace(workers, silent=held)
        if "clock" in question.details:
            workers = with_clocks(connection, self.target, workers, self._patience(), self.received)
        return workers

    def _round(self, connection: Any, question: Question) -> Tally:
        namespace = self.target.control_exchange
        kind = connection.transport.driver_type
        if kind != "redis":
            # memory counts its mailboxes, so everybody can be waited for.
            only = question.only and kind != "memory"
            tally = Tally(question.details, question.names if only else None)
            self.swept += remote_control.ask(
                connection, namespace, tally, question.names, question.at_least, self._patience()
            )
            return tally
        tally = Tally(question.details)
        mailbox = RedisMailbox(connection.default_channel, self.target.options, namespace, self.deadline)
        self.stack.callback(mailbox.close)
        kept = mailbox.ask(tally, self._patience())
        self.swept += mailbox.swept
        if not kept:
            raise FleetError(
                f"{self.link.name} lost the binding of our reply queue while workers answered"
                f" (in {mailbox.table})"
            )
        return tally

    def _patience(self) -> remote_control.Patience:
        # kombu's own default; its workers have the app's options.
        interval = self.target.options.get("polling_interval") or 1.0
        polled = self.link.connection.transport.driver_type == "filesystem"
        return remote_control.Patience(self.deadline, self.cancelled, float(interval) if polled else 0.0)

    def _now(self, connection: Any, details: frozenset[str]) -> float:
        """The epoch that starting times are against: Redis' where there is one, a clock that all share."""
        if details & {"active", "reserved"} and connection.transport.driver_type == "redis":
            with suppress(Exception):
                whole, micro = connection.default_channel.client.time()
                return float(whole) + float(micro) / 1e6
        return epoch()
