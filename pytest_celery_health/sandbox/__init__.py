"""Brokers, workers and a beat of the project, as sealed child processes of one keeper.

Nothing of the process that starts a sandbox is changed: it imports neither celery nor a client of a broker
nor the app.
"""

from pytest_celery_health.sandbox.errors import SandboxError, SpecError
from pytest_celery_health.sandbox.sandbox import Sandbox
from pytest_celery_health.sandbox.spec import SandboxSpec

__all__ = ["Sandbox", "SandboxError", "SandboxSpec", "SpecError"]
