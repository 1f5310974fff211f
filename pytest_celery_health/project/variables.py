"""The variables of the environment that say where an app's broker is. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable

#: Celery lets these win over whatever an app says in code.
BROKER = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")
BACKEND = "CELERY_RESULT_BACKEND"


def redirecting(broker_url: str, backend_url: str, others: Iterable[str] = ()) -> dict[str, str | None]:
    """What each variable must hold for everything to lead to this broker; None: it must not be there.

    `others` are variables of the project's own that shall hold the broker's URL.
    """
    return {**dict.fromkeys((*BROKER, *others), broker_url), BACKEND: backend_url or None}
