"""What a sandbox is to hold. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

#: Celery's names of pools.
POOLS = ("prefork", "threads", "solo", "gevent", "eventlet", "processes", "custom")


@dataclass(frozen=True)
class SandboxSpec:
    """What a sandbox starts, as `[tool.celery-health.sandbox]` words it.

    workers: how many worker processes, named w1, w2, ...
    beat: the schedule entries that the sandbox's beat sends, at once and then on time; none: no beat.
    redirect_env: variables of the project that shall hold the sandbox's broker URL.
    broker: a broker by name (`brokers.NAMES`); "" is the best real one at hand.
    queues: what each worker consumes; () is every queue that the app knows.
    pool: Celery's name of the pool; "" is the app's own choice.
    concurrency: processes or threads of each worker; None is a small number of ours.
    allow: what the sandbox's processes may reach besides its broker: "host:port", or "host:*".
    start_within: seconds that the whole start may take.
    """

    workers: int = 1
    beat: tuple[str, ...] = ()
    redirect_env: tuple[str, ...] = ()
    broker: str = ""
    queues: tuple[str, ...] = ()
    pool: str = ""
    concurrency: int | None = None
    allow: tuple[str, ...] = ()
    start_within: float = 30.0
