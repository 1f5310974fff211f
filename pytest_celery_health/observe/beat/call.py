"""`call:package.module:function`: the project's own way to know when beat was alive."""

from __future__ import annotations

import os

from pytest_celery_health.facts import Beat, Unseen
from pytest_celery_health.observe.beat.times import moment
from pytest_celery_health.observe.context import Context


def read(context: Context, rest: str, url: str) -> Beat | Unseen:
    """What the function returns in a child process with the app loaded: a datetime, ISO 8601, an epoch, or
    None for "never"."""
    del url
    from pytest_celery_health.project.describe import call
    from pytest_celery_health.project.info import ProjectError

    where = f"{rest}()"
    if context.target.spec is None:
        return Unseen(f"{where} belongs to the app, and this target has none at hand", never=True)
    try:
        value = call(
            context.target.spec,
            rest,
            timeout=context.deadline.left(),
            environ={**os.environ, **context.target.env},
        )
    except ProjectError as error:
        return Unseen(f"{where}: {error}")
    if value is None:
        return Unseen(f"{where} returned None: no heartbeat so far")
    found = moment(value, where)
    if isinstance(found, Unseen):
        found = Unseen(found.why.replace(" holds ", " returned ", 1))
    return Beat(found, note=where)
