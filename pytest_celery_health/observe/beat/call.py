"""`call:package.module:function`: the project's own way to know when beat was alive."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from pytest_celery_health.facts import Beat, Unseen
from pytest_celery_health.masking import mask, secrets_in
from pytest_celery_health.observe.beat.times import moment
from pytest_celery_health.observe.context import Context

_ALONE = "pytest_celery_health.project.child.load:private_cache"


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
    ask = partial(
        call,
        target.spec,
        sealed=_Sandbox(target.env) if target.sealed else None,
        environ={**os.environ, **target.env},
    )
    try:
        value = ask(rest, timeout=context.deadline.left())
    except ProjectError as error:
        known = secrets_in(target.url, target.options, target.ssl, target.env, target.spec.env)
        return Unseen(mask("; ".join(line.strip() for line in str(error).splitlines()), known))
    if value is None:
        why = ""
        with suppress(ProjectError):
            why = ask(_ALONE, timeout=context.deadline.left())
        return Unseen(f"{where} returned None: {why or 'no heartbeat so far'}")
    found = moment(value, where, "returned")
    return Beat(found, note=where)
