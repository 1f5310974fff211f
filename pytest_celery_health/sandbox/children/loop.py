"""The event loop of a worker's main process, reached from another thread of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any

from celery.signals import worker_ready

#: Seconds that the event loop and the pool get to show that they are not busy.
_PATIENCE = 1.0


class Loop:
    """The main process' event loop and the threads of its pool, once the worker is ready."""

    def __init__(self) -> None:
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self.consumer: Any = None
        self._hub: Any = None
        worker_ready.connect(self.ready, weak=False)

    def ready(self, sender: Any, **_: Any) -> None:
        """The receiver of `worker_ready`."""
        self.consumer = sender
        self._hub = getattr(sender, "hub", None)
        if self._hub is not None:
            self._listen()

    def _listen(self) -> None:
        self._hub.add_reader(self._woken.fileno(), self._drain)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)

    def turns(self) -> bool:
        """Whether whatever was begun when this was asked is done, signals and their handlers included."""
        executor = getattr(self.pool, "executor", None)  # of the pool of threads
        if executor is not None:
            try:
                executor.submit(int).result(_PATIENCE)
            except FutureTimeout:
                return False
        return self.calls(self._turn)

    def calls(self, function: Callable[[], None]) -> bool:
        """Call a function in the loop's own thread; False if the loop is too busy for it."""
        called = threading.Event()
        if self._hub is None:
            if self.consumer is not None:
                function()
            return self.consumer is not None

        def call() -> None:
            function()
            called.set()

        self._hub.call_soon(call)
        self._wake.send(b".")
        return called.wait(_PATIENCE)

    @property
    def pool(self) -> Any:
        """The worker's pool, None until it is ready."""
        return getattr(self.consumer, "pool", None)

    def _turn(self) -> None:
        # A child's pipe tells of its end a little too soon: then Celery looks again after five seconds only.
        maintain = getattr(getattr(self.pool, "_pool", None), "maintain_pool", None)
        if maintain is not None:
            maintain()
        if self._hub is not None and self._woken.fileno() not in self._hub.readers:
            self._listen()  # again: after the loss of the broker the loop begins anew
