"""What Celery sends with each signal of `celery.signals`, and by whom: 5.4 to 5.7, as its source has it.

Standard library only. `providing_args` says less: task_postrun's state and after_task_publish's headers are
sent and not named there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sent:
    """One signal. `sender` is the kind of thing that sends it: "task" (the task object), "task name",
    "node name", "consumer", "worker", "pool", "heart", "beat", "app", "command", or "nobody" (None).

    parameters: sent besides `sender` and `signal`, by the newest Celery.
    since: the first Celery that sends one of them, where older supported ones do not.
    may_lack: those without which it is sometimes sent.
    """

    sender: str
    parameters: tuple[str, ...] = ()
    since: Mapping[str, str] = field(default_factory=dict)
    may_lack: tuple[str, ...] = ()

    def by(self, version: str) -> tuple[str, ...]:
        """The parameters that this Celery sends; an unknown version is the newest."""
        return tuple(name for name in self.parameters if not _older(version, self.since.get(name, "")))


_FAILED = ("task_id", "exception", "args", "kwargs", "traceback", "einfo")
_CALLED = ("task_id", "task", "args", "kwargs")
_LOGGING = ("loglevel", "logfile", "format", "colorize")

SIGNALS: Mapping[str, Sent] = {
    "before_task_publish": Sent(
        "task name",
        ("body", "exchange", "routing_key", "declare", "headers", "properties", "retry_policy"),
    ),
    "after_task_publish": Sent("task name", ("body", "headers", "exchange", "routing_key")),
    "task_sent": Sent("task name", (*_CALLED, "eta", "taskset")),
    "task_received": Sent("consumer", ("request",)),
    "task_prerun": Sent("task", _CALLED),
    "task_postrun": Sent("task", (*_CALLED, "retval", "state")),
    "task_success": Sent("task", ("result", "runtime"), {"runtime": "5.7"}),
    # A worker that cancels a running task, as it ends or has lost its broker, knows no reason.
    "task_retry": Sent("task", ("request", "reason", "einfo"), may_lack=("reason",)),
    "task_failure": Sent("task", _FAILED),
    "task_internal_error": Sent("task", (*_FAILED, "request")),
    "task_revoked": Sent("task", ("request", "terminated", "signum", "expired")),
    "task_rejected": Sent("consumer", ("message", "exc")),
    "task_unknown": Sent("consumer", ("message", "exc", "name", "id")),
    "import_modules": Sent("app"),
    "user_preload_options": Sent("command", ("app", "options")),
    "celeryd_init": Sent("node name", ("instance", "conf", "options")),
    "celeryd_after_setup": Sent("node name", ("instance", "conf")),
    "worker_init": Sent("worker"),
    "worker_ready": Sent("consumer"),
    "worker_shutting_down": Sent("node name", ("sig", "how", "exitcode")),
    "worker_shutdown": Sent("worker"),
    "worker_before_create_process": Sent("pool"),
    "worker_process_init": Sent("node name"),
    "worker_process_shutdown": Sent("node name", ("pid", "exitcode")),
    "heartbeat_sent": Sent("heart"),
    "setup_logging": Sent("nobody", _LOGGING),
    "after_setup_logger": Sent("nobody", ("logger", *_LOGGING)),
    "after_setup_task_logger": Sent("nobody", ("logger", *_LOGGING)),
    "beat_init": Sent("beat"),
    "beat_embedded_init": Sent("beat"),
    "eventlet_pool_started": Sent("pool"),
    "eventlet_pool_preshutdown": Sent("pool"),
    "eventlet_pool_postshutdown": Sent("pool"),
    "eventlet_pool_apply": Sent("pool", ("target", "args", "kwargs")),
}


def _older(version: str, since: str) -> bool:
    if not version or not since:
        return False
    return [int(part) for part in version.split(".")[:2]] < [int(part) for part in since.split(".")]
