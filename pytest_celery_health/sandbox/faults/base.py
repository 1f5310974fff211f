"""What a fault is. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

#: What a fault may need of a world: a broker, or a result backend of its own, behind a proxy; one that asks
#: for a password; real workers, with a pool of processes; a beat; or nothing but this process, whose HTTP
#: clients it answers.
BROKER = "broker"
BACKEND = "backend"
PASSWORD = "password"  # noqa: S105 - a word, not one
WORKERS = "workers"
PREFORK = "prefork"
BEAT = "beat"
HOST = "host"

#: What is a worker's own, each worker's for itself.
PROCESS, CONSUMERS, POOL, CLOCK = "process", "consumers", "pool", "clock"
WHOLE_WORKER = (PROCESS, CONSUMERS, POOL, CLOCK)


class FaultError(Exception):
    """A fault is not possible here, or not now. The message starts with the fault's name."""


class ImpossibleError(FaultError):
    """This broker cannot be brought there, whatever is done."""


@dataclass(frozen=True)
class Fault:
    """One fault: its `name` is the contract's word and the method of the fixture `celery_faults`.

    what: in a sentence, what is wrong while it is held.
    act: a context manager's function `act(world, **arguments)`. It returns from entering when the fault is
        there, and from leaving when it is seen to be gone; `arguments` are what a user may give, all of them
        with defaults, `host` excepted. It raises FaultError or SandboxError for what it cannot do.
    needs: of the world, words of this module.
    takes: what only one fault at a time can spoil: BROKER, BACKEND, BEAT, HOST (of the argument `host`), and
        what is a worker's own.
    """

    name: str
    what: str
    act: Callable[..., AbstractContextManager[None]]
    needs: tuple[str, ...]
    takes: tuple[str, ...]

    def __str__(self) -> str:
        return self.name
