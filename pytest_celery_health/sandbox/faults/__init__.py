"""Faults, by name: what goes wrong around the code under test, each brought about, held and put back.

`World.hold` holds one. A fault is a row in a file of this package; a project's own is a `Fault` of its own.
Nothing here imports celery before a fault is held.
"""

from __future__ import annotations

from pytest_celery_health.sandbox.faults import beats, blocks, brokers, hosts, ways, workers
from pytest_celery_health.sandbox.faults.base import Fault, FaultError
from pytest_celery_health.spelling import meant

__all__ = ["FAULTS", "Fault", "FaultError", "known"]

FAULTS: dict[str, Fault] = {
    fault.name: fault for module in (ways, brokers, blocks, hosts, workers, beats) for fault in module.FAULTS
}


def known(fault: str | Fault) -> Fault:
    """The fault of this name. Raises FaultError with the nearest."""
    if isinstance(fault, Fault):
        return fault
    if fault in FAULTS:
        return FAULTS[fault]
    raise FaultError(f"{fault} is no fault; {meant(fault, FAULTS)}")
