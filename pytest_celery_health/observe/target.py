"""What a look goes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_celery_health.project.info import AppInfo, AppSpec


class TargetError(Exception):
    """The target could not be made ready to be looked at. The message starts with the evidence."""


@dataclass(frozen=True)
class Target:
    """An app and the broker to look at.

    url: the broker's, a failover list joined with ";". It never shows in a repr or a message.
    options: transport options, the app's own unless the contract says otherwise.
    ssl: `broker_use_ssl`.
    app: what the app says of itself; None for a broker that is looked at by its URL alone.
    app_unseen: why there is no `app`, when it should have been.
    spec: how a child process loads the app, for sources that are the project's own functions.
    env: of such a child: on top of our own environment, or all of it when sealed (the sandbox's).
    """

    name: str
    url: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    ssl: Any = field(default=None, repr=False)
    login_method: str | None = None
    control_exchange: str = "celery"
    event_exchange: str = "celeryev"
    app: AppInfo | None = None
    app_unseen: str = ""
    spec: AppSpec | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    sealed: bool = False
