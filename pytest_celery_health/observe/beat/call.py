"""`call:package.module:function`: the project's own way to know when beat was alive."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_celery_health.facts import Beat, Unseen
from pytest_celery_health.observe.beat.times import moment
from pytest_celery_health.observe.context import Context


@dataclass(frozen=True)
class _Sandbox:
    """Seals a child into the environment of the sandbox's other children."""

    env: Mapping[str, str] = field(repr=False)

    def environ(self, base: Mapping[str, str], *, role: str) -> dict[str, str]:
        del base, role
        return dict(self.env)


def read(context: Context, rest: str, url: str) -> Beat | Unseen:
    """What the function returns in a child process with the app loaded: a datetime, ISO 8601, an epoch, or
    None for "never"."""
    del url
    from pytest_celery_health.project.describe import call
    from pytest_celery_health.project.info import ProjectError

    target = context.target
    where = f"{rest}()"
    if target.spec is None:
        return Unseen(f"{where} belongs to the app, and this target has none at hand", never=True)
    try:
        value = call(
            target.spec,
            rest,
            timeout=context.deadline.left(),
            sealed=_Sandbox(target.env) if target.sealed else None,
            environ={**os.environ, **target.env},
        )
    except ProjectError as error:
        return Unseen("; ".join(line.strip() for line in str(error).splitlines()))
    if value is None:
        return Unseen(f"{where} returned None: no heartbeat so far")
    found = moment(value, where, "returned")
    return Beat(found, note=where)
