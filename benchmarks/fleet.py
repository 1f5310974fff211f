"""A process that holds simulated workers until its standard input is closed."""

from __future__ import annotations

import os
import sys

from benchmarks.app import BROKER, NAME
from pytest_celery_health import RunningTask
from pytest_celery_health.sandbox.fleet.simulated import Fleet


def main(count: int) -> None:
    with Fleet(os.environ[BROKER], control_exchange=os.environ[NAME]) as fleet:
        workers = fleet.workers(
            count,
            active=[RunningTask("shop.task1", running_for=2), RunningTask("shop.task2", running_for=1)],
            reserved=[RunningTask(f"shop.task{number}") for number in range(4)],
            scheduled=[RunningTask("shop.task9")],
            registered=[f"shop.task{number}" for number in range(20)],
            queues=[os.environ[NAME]],
            accepted={"shop.task1": 1000},
            pool_size=2,
        )
        print(*(worker.name for worker in workers), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
