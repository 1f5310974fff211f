"""Where an app is, and what it says of itself. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_celery_health.facts import Entry, Unseen


@dataclass(frozen=True)
class AppSpec:
    """How a child process finds the app.

    app: Celery's own -A grammar, or a factory "package.module:create_app()".
    root: folder of the contract: the child's working directory and first on its sys.path.
    path: further entries of its sys.path.
    env: variables that the contract sets.
    hooks: "FILE:FUNCTION" of each `pytest_celery_health_app` hook, in the order in which they are asked; the
        first that says what the app is wins over the others and over `app`.
    target: name of the target that the hooks are told.
    """

    app: str
    root: Path
    path: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    hooks: tuple[str, ...] = ()
    target: str = "sandbox"

    @property
    def said_by(self) -> str:
        """What says what the app is: its first hook, else `app`; "" if nothing does."""
        return next(iter(self.hooks), self.app)


@dataclass(frozen=True)
class AppInfo:
    """An app as its worker would see it, all modules imported. Plain data, so that it can cross a pipe.

    `broker_url` is the app's read URL (a failover list is joined with ";"). `tasks` are the tasks it
    defines, `queues` the names it declares or routes to, `schedule_unseen` why its schedule cannot be read,
    `unanswering` why its workers answer no remote control, `unreadable` why a look cannot read their answers.
    """

    name: str
    celery_version: str
    broker_url: str = field(repr=False)
    broker_transport_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    broker_use_ssl: Any = field(default=None, repr=False)
    broker_login_method: str | None = None
    control_exchange: str = "celery"
    event_exchange: str = "celeryev"
    control_queue_exclusive: bool | None = None
    default_queue: str = "celery"
    queues: tuple[str, ...] = ()
    tasks: frozenset[str] = frozenset()
    schedule: tuple[Entry, ...] = ()
    schedule_unseen: str = ""
    redbeat: Mapping[str, Any] = field(default_factory=dict, repr=False)
    unanswering: str = ""
    unreadable: str = ""


def info_in(said: Mapping[str, Any]) -> AppInfo:
    """An app's word of itself that crossed a pipe."""
    schedule = tuple(
        Entry(**{key: _plain(value) for key, value in entry.items()}) for entry in said["schedule"]
    )
    queues, tasks = tuple(said["queues"]), frozenset(said["tasks"])
    return AppInfo(**{**said, "queues": queues, "tasks": tasks, "schedule": schedule})


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return Unseen(**value) if isinstance(value, dict) else value


class ProjectError(Exception):
    """The app could not be loaded or asked. The message starts with the evidence; it holds no secret."""
