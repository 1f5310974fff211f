"""A sealed world without a broker, for a child that loads the app and needs nothing else."""

from __future__ import annotations

import contextlib

from pytest_celery_health.project.describe import child_environ
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.client import Client
from pytest_celery_health.sandbox.seal import Refusal, Seal, clean_environ, refusals
from pytest_celery_health.sandbox.spec import SandboxSpec

#: What `redirect_env` holds. A refusal names it.
_NOWHERE = "no-broker-is-started.invalid"


class Brokerless:
    """What children get as their environment. `spec` says what they may reach, and what is redirected.

    Raises SandboxError for an endpoint that is none.
    """

    def __init__(self, spec: SandboxSpec, app: AppSpec) -> None:
        with contextlib.ExitStack() as stack:
            keeper = Client.start()  # its folder goes when this process is killed, too
            stack.callback(keeper.leave)
            folder = keeper.folder / "world"
            folder.mkdir(mode=0o700)
            self._log = folder / "refusals"
            try:
                self.seal = Seal(spec.allow, self._log)
            except ValueError as error:
                raise SandboxError(f"allow: {error}") from None
            self._stack = stack.pop_all()
        self.environ = clean_environ(
            child_environ(app),
            broker_url="memory://",
            backend_url="",
            own=dict(app.env),
            private=self._log.parent,
        )
        scheme = "amqp" if spec.broker == "rabbitmq-server" else "redis"
        self.environ.update(dict.fromkeys(spec.redirect_env, f"{scheme}://{_NOWHERE}/0"))

    def refusals(self) -> list[Refusal]:
        """What was refused so far; nothing after close()."""
        return refusals(self._log)

    def close(self) -> None:
        """Remove its files."""
        self._stack.close()
