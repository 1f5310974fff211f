"""Brokers alone, started once for the tests of a process, and emptied between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox
from pytest_celery_health.sandbox.queues.emptying import emptied
from pytest_celery_health.sandbox.spec import SandboxSpec


class EmbeddedBrokers:
    """spec: of the contract, for its broker and its bounds. root: where children are started."""

    def __init__(self, spec: SandboxSpec, root: Path) -> None:
        self._spec = replace(spec, workers=0, beat=(), redirect_env=())
        self._root = root
        self._running: dict[str, Sandbox] = {}

    @contextmanager
    def empty(self, name: str = "") -> Iterator[Sandbox]:
        """A broker by name, "" for the contract's or the best at hand, that holds nothing now and at the end.

        Raises SandboxError when it cannot be started.
        """
        name = name or self._spec.broker
        broker = self._running.get(name)
        if broker is None:
            broker = Sandbox(replace(self._spec, broker=name), AppSpec("", self._root))
            broker.start()
            self._running[name] = broker
        with emptied(broker.target.url):
            yield broker

    def close(self) -> None:
        """End all of them."""
        running, self._running = self._running, {}
        for broker in running.values():
            broker.close()
