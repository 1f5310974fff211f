"""The ends of a task that a drill can bring about: one row each. Standard library only.

A row says what is sent and done (`body`, `play`), what Celery is known to do (`signals`), which pools cannot
do it and whose workers do not survive it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_celery_health.sandbox.drills import shutdown

if TYPE_CHECKING:
    from pytest_celery_health.sandbox.drills.stage import Stage

POOLS = ("prefork", "solo", "threads")
#: The task of drills that name none.
DRILL_TASK = "celery_health.drill"
#: Header of a drill's message: which body is run, and what it is told.
HEADER = "celery_health_drill"
#: Where bodies are, as `End.body` names them.
BODIES = "pytest_celery_health.sandbox.drills.bodies"
#: Seconds of a time limit.
_SOON = 0.2
#: How often a poison pill is let kill.
PILLS = 3


_LOST = "Connection to broker lost"


def _send(stage: Stage) -> None:
    stage.send()


def _sends(**more: Any) -> Callable[[Stage], None]:
    return lambda stage: stage.send(**more)


@dataclass(frozen=True)
class End:
    """One end.

    what: in a sentence, how it is brought about.
    signals: what is sent after task_received, by pool, or by pool and version ("prefork 5.4") where that
    differs: names without "task_", in which process (m: main, c: child), task_postrun with its state.
    body: "module:function", see `bodies`. said: what it is told. play: what is done; by default, send.
    until: signals of which one shows that the end has come. logged: a log record that does.
    impossible: why, by pool. breaks: pools whose worker does not survive it. forgotten: pools whose worker
    never learns that the task has ended.
    options: of the task meanwhile. conf: settings of a worker of its own. fresh: whether it needs one.
    starts: whether the recording begins with the worker.
    nameless: its signals do not say which task they are about. since: the first Celery that has it.
    """

    name: str
    what: str
    signals: Mapping[str, str]
    body: str = f"{BODIES}:succeeds"
    said: Mapping[str, Any] = field(default_factory=dict)
    play: Callable[[Stage], None] = _send
    until: tuple[str, ...] = ("task_postrun",)
    logged: str = ""
    impossible: Mapping[str, str] = field(default_factory=dict)
    breaks: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    conf: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False
    starts: bool = False
    nameless: bool = False
    since: str = ""

    def signals_of(self, pool: str, celery: str) -> str:
        """What this Celery sends with this pool."""
        minor = ".".join(celery.split(".")[:2])
        return self.signals.get(f"{pool} {minor}", self.signals.get(pool, ""))


def _starts(stage: Stage) -> None:
    # The children of a pool may be later than worker_ready.
    if stage.worker.pool in ("prefork", "solo"):
        stage.wait_for("worker_process_init")


def _revoked_before(stage: Stage) -> None:
    stage.revoke()
    stage.wait(lambda: (stage.worker.ask(do="look", id=stage.id) or {}).get("revoked"), "the revocation")
    stage.send()


def _revoked_running(stage: Stage) -> None:
    stage.send()
    stage.wait_for("task_prerun")
    stage.revoke(terminate=True)


def _expired(stage: Stage) -> None:
    from pytest_celery_health.sandbox.drills.stage import in_seconds

    stage.send(expires=in_seconds(-60))


def _poison(stage: Stage) -> None:
    stage.send(said={"times": PILLS})
    # A child may record its run before the main process has recorded the message.
    stage.wait(
        lambda: min(len(stage.sent("task_prerun")), len(stage.sent("task_received"))) > PILLS,
        f"run {PILLS + 1}",
    )
    # The run by which the worker is rid of it is no part of the end.
    stage.until = stage.sent("task_received")[PILLS].at


def _broker_lost(stage: Stage) -> None:
    stage.send(said={"seconds": 0})
    stage.wait_for("task_prerun")
    stage.disconnect()
    stage.broker_lost = True
    stage.sandbox.stop_broker()
    try:
        if stage.worker.pool != "solo":  # which notices nothing while it is busy
            stage.wait(lambda: stage.logged(_LOST), "the loss of the broker")
    finally:
        stage.sandbox.restart_broker()
    stage.file.touch()
    stage.wait_for("task_postrun")
    stage.wait(
        lambda: (stage.logged(_LOST) and stage.logged("Connected to ")) or stage.gone, "the worker's return"
    )


def _dies(first: signal.Signals) -> Callable[[Stage], None]:
    return lambda stage: shutdown.shut_down(stage, first)


_NO_LIMITS = "Celery enforces no time limit there"
_NO_CHILD = "there is no child process that could be ended"
_ONE_BY_ONE = "it takes the worker with it, so a pill takes one worker after another: see worker_lost"
_RAISED = "prerun {0}, failure {0}, postrun {0} FAILURE"


def _everywhere(text: str, version: str = "") -> dict[str, str]:
    """{0} is the child of a prefork pool; solo and threads run tasks in the main process."""
    return {f"{pool}{version}": text.format("c" if pool == "prefork" else "m") for pool in POOLS}


def _body(name: str) -> str:
    return f"{BODIES}:{name}"


_ROWS = (
    End("success", "The task returns.", _everywhere("prerun {0}, success {0}, postrun {0} SUCCESS")),
    End("raises", "The task raises an exception.", _everywhere(_RAISED), _body("raises")),
    End(
        "retry",
        "The task retries once, at once, and then returns.",
        _everywhere(
            "prerun {0}, before_publish {0}, after_publish {0}, retry {0}, postrun {0} RETRY, received m,"
            " prerun {0}, success {0}, postrun {0} SUCCESS"
        ),
        _body("retries"),
        {"retries": 1},
        until=("task_success", "task_failure"),
    ),
    End(
        "retries_exhausted",
        "The task retries at once as often as it may (three times if it may for ever), and then fails.",
        _everywhere(
            "(prerun {0}, before_publish {0}, after_publish {0}, retry {0}, postrun {0} RETRY,"
            " received m) x 3, " + _RAISED
        ),
        _body("retries"),
        {"retries": None},
        until=("task_failure",),
    ),
    End(
        "ignore", "The task raises Ignore.", _everywhere("prerun {0}, postrun {0} IGNORED"), _body("ignores")
    ),
    End(
        "reject",
        "The task raises Reject(requeue=False).",
        {
            **_everywhere("prerun {0}, postrun {0} REJECTED, failure m"),
            **_everywhere("prerun {0}, postrun {0} REJECTED", " 5.4"),
        },
        _body("rejects"),
    ),
    End(
        "soft_time_limit",
        "The message's soft time limit passes; the task lets SoftTimeLimitExceeded through.",
        {"prefork": _RAISED.format("c")},
        _body("outlasts"),
        play=_sends(timelimit=[None, _SOON]),
        impossible={"solo": _NO_LIMITS, "threads": _NO_LIMITS},
    ),
    End(
        "hard_time_limit",
        "The message's hard time limit passes, as the soft one before it; the main process ends the child.",
        {
            "prefork": "prerun c, failure m, failure m, postrun c None",
            "prefork 5.4": "prerun c, failure m, postrun c None",
        },
        _body("outlasts_all_limits"),
        # Celery counts the hard limit from the soft one, which may be the app's own, and long.
        play=_sends(timelimit=[2 * _SOON, _SOON]),
        until=("task_failure",),
        impossible={"solo": _NO_LIMITS, "threads": _NO_LIMITS},
    ),
    End(
        "worker_lost",
        "The process that runs the task is killed with SIGKILL, as by the kernel when memory runs out.",
        {"prefork": "prerun c, failure m", "solo": "prerun m", "threads": "prerun m"},
        _body("is_killed"),
        until=("task_failure",),
        breaks=("solo", "threads"),
    ),
    End(
        "sys_exit",
        "The task calls sys.exit().",
        {
            **_everywhere("prerun {0}, postrun {0} None"),
            "prefork": "prerun c, postrun c None, failure m",
            "prefork 5.4": "prerun c, postrun c None",
        },
        _body("exits"),
        breaks=("solo",),
        forgotten=("threads",),
    ),
    End(
        "memory_error",
        "The task raises MemoryError.",
        _everywhere(_RAISED),
        _body("runs_out_of_memory"),
        breaks=("prefork", "solo"),
    ),
    End(
        "wrong_arguments",
        "The message brings an argument that the task does not take.",
        _everywhere(_RAISED),
        _body("takes_no_arguments"),
        play=_sends(args=("no such parameter",)),
    ),
    End(
        "unserialisable_result",
        "The task returns what the result's serializer cannot take.",
        _everywhere(_RAISED),
        _body("returns_what_no_serializer_takes"),
    ),
    End(
        "unpicklable_exception",
        "The task raises an exception that cannot be sent from a child to the main process.",
        _everywhere(_RAISED),
        _body("raises_what_cannot_be_pickled"),
    ),
    End(
        "unregistered",
        "The message names a task that the worker does not know.",
        _everywhere("unknown m"),
        play=_sends(name="celery_health.unregistered"),
        until=("task_unknown",),
    ),
    End(
        "missing_header",
        "The message has neither a task's header nor a task's body.",
        _everywhere("rejected m"),
        play=_sends(without=("task",), raw={"order": 1}),
        until=("task_rejected",),
        nameless=True,
    ),
    End(
        "undecodable_body",
        "The message's body is not what its content type says.",
        _everywhere(""),
        play=_sends(raw=b'{"order": '),
        until=(),
        logged="Can't decode message body",
    ),
    End(
        "revoked_before",
        "The task is revoked before its message comes.",
        _everywhere("revoked m"),
        play=_revoked_before,
        until=("task_revoked",),
    ),
    End(
        "revoked_running",
        "The task is revoked with terminate=True while it runs.",
        {"prefork": "prerun c, postrun c None, revoked m"},
        _body("outlasts"),
        play=_revoked_running,
        until=("task_revoked",),
        impossible={"solo": _NO_CHILD, "threads": _NO_CHILD},
    ),
    End(
        "expired",
        "The message expired before it came.",
        _everywhere("revoked m"),
        play=_expired,
        until=("task_revoked",),
    ),
    End(
        "poison_pill",
        "The task kills its child, and with acks_late and reject_on_worker_lost comes back for ever:"
        f" here, until it has killed {PILLS}.",
        {"prefork": "prerun c, (received m, prerun c) x 2"},
        _body("is_killed_some_times"),
        play=_poison,
        impossible={"solo": _ONE_BY_ONE, "threads": _ONE_BY_ONE},
        options={"acks_late": True, "reject_on_worker_lost": True},
    ),
    End(
        "broker_lost",
        "The broker goes while the task runs, and comes back empty.",
        _everywhere("prerun {0}, success {0}, postrun {0} SUCCESS"),
        _body("runs_on"),
        play=_broker_lost,
        forgotten=POOLS,
    ),
    End(
        "warm_shutdown",
        "SIGTERM, the grace, SIGKILL: as Kubernetes does it.",
        {},
        _body("runs_on"),
        play=_dies(signal.SIGTERM),
        until=(),
        breaks=POOLS,
    ),
    End(
        "soft_shutdown",
        "SIGQUIT with worker_soft_shutdown_timeout, the grace, SIGKILL: as with REMAP_SIGTERM=SIGQUIT.",
        {},
        _body("runs_on"),
        play=_dies(signal.SIGQUIT),
        until=(),
        breaks=POOLS,
        conf={"worker_soft_shutdown_timeout": 1.0},
        fresh=True,
        since="5.5",
    ),
    End(
        "cold_shutdown",
        "SIGQUIT, the grace, SIGKILL: as with REMAP_SIGTERM=SIGQUIT.",
        {},
        _body("runs_on"),
        play=_dies(signal.SIGQUIT),
        until=(),
        breaks=POOLS,
        conf={"worker_soft_shutdown_timeout": 0.0},
        fresh=True,
    ),
    End(
        "worker_starts",
        "A worker starts.",
        {},
        play=_starts,
        until=("worker_ready",),
        fresh=True,
        starts=True,
        nameless=True,
    ),
    End(
        "worker_killed",
        "The worker's main process is killed with SIGKILL while it runs, has prefetched and holds tasks.",
        {},
        _body("runs_on"),
        play=_dies(signal.SIGKILL),
        until=(),
        breaks=POOLS,
    ),
)

#: Every end by name.
ENDS: dict[str, End] = {end.name: end for end in _ROWS}
