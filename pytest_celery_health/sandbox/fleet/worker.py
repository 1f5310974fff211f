"""One simulated worker: its state, and what it answers to each command."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from uuid import uuid4

import celery
from celery.events.event import Event
from celery.platforms import signals
from celery.utils.time import maybe_iso8601, rate, utcoffset
from kombu import Exchange, Queue
from kombu.serialization import dumps

from pytest_celery_health.facts import RunningTask

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pytest_celery_health.sandbox.fleet.simulated import Fleet

_POOLS = {
    "prefork": "celery.concurrency.prefork:TaskPool",
    "threads": "celery.concurrency.thread:TaskPool",
    "solo": "celery.concurrency.solo:TaskPool",
    "gevent": "celery.concurrency.gevent:TaskPool",
    "eventlet": "celery.concurrency.eventlet:TaskPool",
}
_ALIASES = {
    "dump_active": "active",
    "dump_reserved": "reserved",
    "dump_schedule": "scheduled",
    "dump_revoked": "revoked",
    "dump_tasks": "registered",
    "dump_conf": "conf",
}
#: Seconds since 1970 below which a number is no time that was meant, but a duration.
_LEAST_EPOCH = 1e9
_TASKS: tuple[Literal["active", "reserved", "scheduled"], ...] = ("active", "reserved", "scheduled")
_RUSAGE = {
    **dict.fromkeys(("utime", "stime"), 0.1),
    "maxrss": 50_000,
    **dict.fromkeys(("ixrss", "idrss", "isrss", "minflt", "majflt", "nswap"), 0),
    **dict.fromkeys(("inblock", "oublock", "msgsnd", "msgrcv", "nsignals", "nvcsw", "nivcsw"), 0),
}


class State(TypedDict, total=False):
    """What a simulated worker says of itself. Durations are seconds.

    active, reserved, scheduled: the tasks it holds. A mapping in the place of a `RunningTask` may set any
        field of Celery's own description of a request (`name`, `args`, `delivery_info`, ...), and `eta`: a
        datetime with a time zone, ISO 8601, or seconds since 1970.
    queues: what it consumes; a mapping is given as it is.
    revoked: ids of tasks that it was told to revoke.
    registered: its tasks; by default those of the app, and those that it holds or accepted.
    accepted: how many tasks it accepted since its start, by name.
    uptime: at the time it is given; it grows from there.
    pool: Celery's name of the pool, or "module:Class".
    version: Celery's.
    clock_offset: its wall clock minus ours: in `time_start`, ETAs and events.
    stats: laid over what it answers to `stats`.
    conf: what it answers to `conf`.
    replies: answers to further commands, by name: values, or functions of the command's arguments.
    only: the commands it answers at all; None: every one.
    delay: before each answer.
    silent: whether it never answers, like a frozen worker: its mailbox is still there.
    garbage: whether its answers have no shape that Celery knows.
    """

    active: Sequence[RunningTask | Mapping[str, Any]]
    reserved: Sequence[RunningTask | Mapping[str, Any]]
    scheduled: Sequence[RunningTask | Mapping[str, Any]]
    queues: Sequence[str | Mapping[str, Any]]
    revoked: Sequence[str]
    registered: Sequence[str] | None
    accepted: Mapping[str, int]
    uptime: float
    pool: str
    pool_size: int
    version: str
    clock_offset: float
    stats: Mapping[str, Any]
    conf: Mapping[str, Any]
    replies: Mapping[str, Any]
    only: Iterable[str] | None
    delay: float
    silent: bool
    garbage: bool


_DEFAULTS: State = {
    "active": (),
    "reserved": (),
    "scheduled": (),
    "queues": ("celery",),
    "revoked": (),
    "registered": None,
    "accepted": {},
    "uptime": 60.0,
    "pool": "prefork",
    "pool_size": 1,
    "version": celery.__version__,
    "clock_offset": 0.0,
    "stats": {},
    "conf": {},
    "replies": {},
    "only": None,
    "delay": 0.0,
    "silent": False,
    "garbage": False,
}


class SimulatedWorker:
    """One simulated worker. Made by `Fleet.worker`; `change` and `stop` work at any time."""

    def __init__(
        self, fleet: Fleet, name: str, address: int, state: State, of_app: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.name = name
        self.address = address
        self._fleet = fleet
        #: The app's tasks, and what is told of each.
        self._of_app = of_app
        self._state: State = dict(_DEFAULTS)  # type: ignore[assignment]
        self._pid = 10_000 + address
        self._said: dict[str, tuple[int, Any]] = {}
        self._sends_events = False
        self._holds: dict[str, list[dict[str, Any]]] = {}
        #: Processes that it was told to have beyond `pool_size`, which a prefork worker goes on to tell.
        self._grown = 0
        #: What `rate_limit` and `time_limit` have set, by task and attribute.
        self._limits: dict[str, dict[str, Any]] = {}
        self.change(**state)

    def __repr__(self) -> str:
        return f"<simulated worker {self.name}>"

    @property
    def state(self) -> State:
        """What it says of itself now; a copy."""
        return self._state.copy()

    @property
    def delay(self) -> float:
        """Seconds before each answer."""
        return self._state["delay"]

    def heeds(self, command: str) -> bool:
        """Whether it answers this command at all."""
        only = self._state["only"]
        return not self._state["silent"] and (only is None or command in only)

    def change(self, **state: Unpack[State]) -> None:
        """Say something else from now on. What it holds keeps its id and its start unless it is given anew.

        Raises TypeError for what no worker says of itself, ValueError for what no worker holds.
        """
        unknown = state.keys() - _DEFAULTS.keys()
        if unknown:
            raise TypeError(f"a simulated worker has no {sorted(unknown)[0]}; it has {', '.join(_DEFAULTS)}")
        new: State = {**self._state, **state}
        for key in (*_TASKS, "queues", "revoked"):
            _refuse_no_list(key, new[key])  # type: ignore[literal-required]
        holds: dict[str, list[dict[str, Any]]] = {
            key: [self._held(key, f"{key}[{index}]", task, new) for index, task in enumerate(new[key])]
            for key in _TASKS
            if key in state or not self._holds
        }
        self._move_clock(new["clock_offset"] - self._state["clock_offset"])
        self._holds |= holds
        if "pool_size" in state:
            self._grown = 0
        if "uptime" in state or not hasattr(self, "_started"):
            self._started = time.monotonic() - new["uptime"]
        self._state = new
        self._said.clear()

    def stop(self) -> None:
        """Take its mailbox away, as a worker that ends does."""
        self._fleet.remove([self])

    def answer(self, command: str, arguments: Mapping[str, Any]) -> Any:
        """What it answers. Raises KeyError for a command that it does not know."""
        if self._state["garbage"]:
            return "\N{REPLACEMENT CHARACTER}garbage"
        command = _ALIASES.get(command, command)
        replies = self._state["replies"]
        if command in replies:
            reply = replies[command]
            return reply(**arguments) if callable(reply) else reply
        known: Callable[..., Any] | None = _COMMANDS.get(command)
        if known is None:
            raise KeyError(command)
        return known(self, **arguments)

    def serialised(self, command: str, arguments: Mapping[str, Any]) -> tuple[str, str, str | bytes]:
        """The whole answer as (content type, encoding, payload)."""
        second = int(time.monotonic() - self._started)
        kept = None if arguments else self._said.get(command)
        if kept is not None and kept[0] in (second, -1):
            return kept[1]  # type: ignore[no-any-return]
        try:
            reply = self.answer(command, arguments)
        except Exception as error:  # noqa: BLE001 - a worker answers with whatever was raised
            reply = {"error": repr(error)}
        said: tuple[str, str, str | bytes] = dumps({self.name: reply}, serializer=self._fleet.serializer)
        if not arguments and command in _STEADY and command not in self._state["replies"]:
            self._said[command] = (-1, said)
        elif not arguments and command == "stats":
            self._said[command] = (second, said)
        return said

    def _held(
        self, key: str, where: str, task: RunningTask | Mapping[str, Any], state: State
    ) -> dict[str, Any]:
        """A task as it is told of. Raises ValueError that says where it was written."""
        if isinstance(task, RunningTask):
            task = {"name": task.name, "running_for": task.running_for, "id": task.id}
        if not isinstance(task, Mapping):
            named = repr(task if isinstance(task, str) else "shop.pay")
            raise ValueError(
                f"{where} is {task!r}; write RunningTask({named}, running_for=60), or a mapping:"
                f" {{'name': {named}}}"
            )
        now = time.time() + state["clock_offset"]
        try:
            if key != "scheduled":
                return self._request(task, state, now if key == "active" else None)
            eta = task.get("eta")
            told = _iso(now + 60.0 if eta is None else eta)
            return {"eta": told, "priority": 6, "request": self._request(task, state, None)}
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    def _move_clock(self, seconds: float) -> None:
        for task in self._holds.get("active", ()):
            if seconds and task["time_start"] is not None:
                task["time_start"] += seconds

    def _request(self, task: Mapping[str, Any], state: State, now: float | None) -> dict[str, Any]:
        given = dict(task)
        running_for = given.pop("running_for", None)
        if running_for is not None and not isinstance(running_for, (int, float)):
            raise ValueError(f"running_for is {running_for!r}; write seconds")
        given.pop("eta", None)
        name = given.get("name", "")
        queues = [_name_of(queue) for queue in state["queues"]]
        described = {
            "id": given.pop("id", "") or str(uuid4()),
            "name": name,
            "args": [],
            "kwargs": {},
            "type": name,
            "hostname": self.name,
            "time_start": None if now is None else now - (running_for or 0.0),
            "acknowledged": now is not None,
            "delivery_info": {
                "exchange": "",
                "routing_key": queues[0] if queues else "celery",
                "priority": 0,
                "redelivered": False,
            },
            "worker_pid": None if now is None else self._pid + 1,
        }
        return {**described, **given}

    def _ping(self, **_: Any) -> Any:
        return {"ok": "pong"}

    def _list_active(self, safe: bool = False, **_: Any) -> Any:
        if not safe:
            return self._holds["active"]
        return [
            {**task, "args": repr(task["args"]), "kwargs": repr(task["kwargs"])}
            for task in self._holds["active"]
        ]

    def _list_reserved(self, **_: Any) -> Any:
        return self._holds["reserved"]

    def _list_scheduled(self, **_: Any) -> Any:
        return self._holds["scheduled"]

    def _list_revoked(self, **_: Any) -> Any:
        return list(self._state["revoked"])

    def _registered(self, taskinfoitems: Any = None, builtins: bool = False, **_: Any) -> Any:
        shown = taskinfoitems or ("exchange", "routing_key", "rate_limit")
        own = _builtin_tasks() if builtins else ()
        return [self._described_task(name, shown) for name in sorted({*self._tasks(), *own})]

    def _described_task(self, name: str, items: Iterable[str]) -> str:
        limits: Mapping[str, Any] = self._of_app.get(name, {})
        if name in self._limits:
            limits = {**limits, **self._limits[name]}
        if not limits:
            return name
        told = " ".join(f"{item}={limits[item]}" for item in items if limits.get(item) is not None)
        return f"{name} [{told}]" if told else name

    def _tasks(self) -> list[str]:
        names = self._state["registered"]
        if names is None:
            held = [
                *self._holds["active"],
                *self._holds["reserved"],
                *(entry["request"] for entry in self._holds["scheduled"]),
            ]
            names = [*{*self._of_app, *(str(task["name"]) for task in held), *self._state["accepted"]}]
        return list(names)

    def _active_queues(self, **_: Any) -> Any:
        return [described(queue) if isinstance(queue, str) else queue for queue in self._state["queues"]]

    def _conf(self, **_: Any) -> Any:
        return {"broker_url": self._fleet.masked_url, **self._state["conf"]}

    def _clock(self, **_: Any) -> Any:
        return {"clock": self._fleet.clock.value}

    def _hello(self, from_node: str, revoked: Iterable[str] | None = None, **_: Any) -> Any:
        if from_node == self.name:
            return None
        self._keep_revoked(revoked or ())
        return {"revoked": list(self._state["revoked"]), "clock": self._fleet.clock.forward()}

    def _report(self, **_: Any) -> Any:
        version = self._state["version"]
        return {
            "ok": f"\nsoftware -> celery:{version} py:{platform.python_version()}\n"
            f"platform -> system:{platform.system()}\n"
        }

    def _query_task(self, ids: Any, **_: Any) -> Any:
        wanted = {ids} if isinstance(ids, str) else set(ids)
        scheduled = [entry["request"] for entry in self._holds["scheduled"]]
        held = (
            ("scheduled", scheduled),
            ("reserved", self._holds["reserved"]),
            ("active", self._holds["active"]),
        )
        return {task["id"]: (state, task) for state, tasks in held for task in tasks if task["id"] in wanted}

    def _stats(self, **_: Any) -> Any:
        state = self._state
        stats = {
            "total": dict(state["accepted"]),
            "pid": self._pid,
            "clock": str(self._fleet.clock.value),
            "uptime": round(time.monotonic() - self._started),
            "pool": self._pool(state["pool"], state["pool_size"]),
            "broker": self._fleet.broker,
            "prefetch_count": self._processes * 4 + len(self._holds["scheduled"]),
            "rusage": dict(_RUSAGE),
        }
        return {**stats, **state["stats"]}

    def _pool(self, pool: str, size: int) -> dict[str, Any]:
        info: dict[str, Any] = {"implementation": _POOLS.get(pool, pool), "max-concurrency": size}
        children = [self._pid + 1 + number for number in range(self._processes)]
        if pool == "prefork":
            total = sum(self._state["accepted"].values())
            writes = {
                "total": total,
                "avg": f"{1 / size if size and total else 0:.2f}",
                "all": "",
                "raw": "",
                "strategy": "fair",
                "inqueues": {"total": len(children), "active": 0},
            }
            info |= {
                "processes": children,
                "max-tasks-per-child": "N/A",
                "put-guarded-by-semaphore": False,
                "timeouts": [0, 0],
                "writes": writes,
            }
        elif pool == "solo":
            info |= {
                "max-concurrency": 1,
                "processes": [self._pid],
                "max-tasks-per-child": None,
                "put-guarded-by-semaphore": True,
                "timeouts": [],
            }
        elif pool == "threads":
            info["threads"] = size
        elif pool in ("gevent", "eventlet"):
            info |= {"free-threads": size, "running-threads": 0}
        return info

    def _heartbeat(self, **_: Any) -> None:
        offset = self._state["clock_offset"]
        event = Event(
            "worker-heartbeat",
            hostname=self.name,
            utcoffset=utcoffset(),
            pid=self._pid,
            clock=self._fleet.clock.forward(),
            freq=5,
            sw_ident="py-celery",
            sw_ver=self._state["version"],
            sw_sys=platform.system(),
        )
        event["timestamp"] = time.time() + offset
        self._fleet.announce(event)

    def _add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str | None = None,
        routing_key: str | None = None,
        **_: Any,
    ) -> Any:
        if queue not in map(_name_of, self._state["queues"]):
            of = Exchange(exchange or queue, type=exchange_type or "direct")
            told = Queue(queue, of, routing_key=routing_key or queue).as_dict(recurse=True)
            self.change(queues=(*self._state["queues"], told))
        return {"ok": f"add consumer {queue}"}

    def _cancel_consumer(self, queue: str, **_: Any) -> Any:
        self.change(queues=[one for one in self._state["queues"] if _name_of(one) != queue])
        return {"ok": f"no longer consuming from {queue}"}

    def _enable_events(self, **_: Any) -> Any:
        already, self._sends_events = self._sends_events, True
        return {"ok": "task events already enabled" if already else "task events enabled"}

    def _disable_events(self, **_: Any) -> Any:
        already, self._sends_events = not self._sends_events, False
        return {"ok": "task events already disabled" if already else "task events disabled"}

    def _pool_grow(self, n: int = 1, **_: Any) -> Any:
        self._resize("grow", n)
        return {"ok": "pool will grow"}

    def _pool_shrink(self, n: int = 1, **_: Any) -> Any:
        prefork = self._state["pool"] == "prefork"
        idle = self._processes - len(self._holds["active"]) if prefork else n
        self._resize("shrink", -min(n, max(idle, 0)))
        if n > idle:
            raise ValueError("Can't shrink pool. All processes busy!")
        return {"ok": "pool will shrink"}

    @property
    def _processes(self) -> int:
        return self._state["pool_size"] + self._grown

    def _resize(self, method: str, by: int) -> None:
        pool = self._state["pool"]
        if pool in ("solo", "threads"):
            raise AttributeError(f"'TaskPool' object has no attribute '{method}'")
        if pool == "prefork":
            self._grown += by
            self._said.clear()
        else:
            self.change(pool_size=self._state["pool_size"] + by)

    def _pool_restart(self, **_: Any) -> Any:
        raise ValueError("Pool restarts not enabled")

    def _autoscale(self, **_: Any) -> Any:
        raise ValueError("Autoscale not enabled")

    def _rate_limit(self, task_name: str, rate_limit: Any, **_: Any) -> Any:
        try:
            rate(rate_limit)
        except ValueError as error:
            return {"error": f"Invalid rate limit string: {error!r}"}
        if task_name not in self._tasks():
            return {"error": "unknown task"}
        self._limit(task_name, rate_limit=rate_limit)
        return {"ok": "new rate limit set successfully" if rate_limit else "rate limit disabled successfully"}

    def _time_limit(self, task_name: str = "", hard: Any = None, soft: Any = None, **_: Any) -> Any:
        if task_name not in self._tasks():
            return {"error": "unknown task"}
        self._limit(task_name, time_limit=hard, soft_time_limit=soft)
        return {"ok": "time limits set successfully"}

    def _limit(self, task_name: str, **limits: Any) -> None:
        self._limits.setdefault(task_name, {}).update(limits)
        self._said.clear()

    def _memsample(self, **_: Any) -> Any:
        return f"{_RUSAGE['maxrss'] / 1024:.1f}MB"

    def _memdump(self, **_: Any) -> Any:
        return "- rss (sample): (no samples collected).\n"

    def _objgraph(self, **_: Any) -> Any:
        raise ImportError("Requires the objgraph library")

    def _election(self, **_: Any) -> None:
        """Nobody of a simulated fleet holds one."""

    def _revoke_by_stamped_headers(self, headers: Any, terminate: bool = False, **_: Any) -> Any:
        told = headers if isinstance(headers, Mapping) else dict(each.split("=", 1) for each in headers)
        end = "were not terminated" if terminate else "flagged as revoked, but not terminated"
        return {"ok": f"headers {told} {end}"}

    def _revoke(
        self, task_id: Any, terminate: bool = False, signal: str | int | None = None, **_: Any
    ) -> Any:
        ids = {task_id} if isinstance(task_id, str) else set(task_id or ())
        self._keep_revoked(ids)
        if not terminate:
            return {"ok": f"tasks {ids} flagged as revoked"}
        signals.signum(signal or "TERM")
        scheduled = (entry["request"] for entry in self._holds["scheduled"])
        held = (*self._holds["active"], *self._holds["reserved"], *scheduled)
        ended = [task["id"] for task in held if task["id"] in ids]
        self._holds["active"] = [task for task in self._holds["active"] if task["id"] not in ids]
        self._said.clear()
        return {"ok": f"terminate: {', '.join(ended) or 'tasks unknown'}"}

    def _keep_revoked(self, ids: Iterable[str]) -> None:
        self.change(revoked=list(dict.fromkeys((*self._state["revoked"], *ids))))

    def _terminate(self, signal: str | int, task_id: Any, **_: Any) -> Any:
        return self._revoke(task_id, terminate=True, signal=signal)

    def _shutdown(self, **_: Any) -> None:
        raise Shutdown


class Shutdown(BaseException):
    """Ends a simulated worker. Like the worker's own it sends no answer."""


_COMMANDS: dict[str, Callable[..., Any]] = {
    "ping": SimulatedWorker._ping,
    "active": SimulatedWorker._list_active,
    "reserved": SimulatedWorker._list_reserved,
    "scheduled": SimulatedWorker._list_scheduled,
    "revoked": SimulatedWorker._list_revoked,
    "registered": SimulatedWorker._registered,
    "active_queues": SimulatedWorker._active_queues,
    "stats": SimulatedWorker._stats,
    "conf": SimulatedWorker._conf,
    "clock": SimulatedWorker._clock,
    "hello": SimulatedWorker._hello,
    "report": SimulatedWorker._report,
    "query_task": SimulatedWorker._query_task,
    "heartbeat": SimulatedWorker._heartbeat,
    "add_consumer": SimulatedWorker._add_consumer,
    "cancel_consumer": SimulatedWorker._cancel_consumer,
    "enable_events": SimulatedWorker._enable_events,
    "disable_events": SimulatedWorker._disable_events,
    "pool_grow": SimulatedWorker._pool_grow,
    "pool_shrink": SimulatedWorker._pool_shrink,
    "pool_restart": SimulatedWorker._pool_restart,
    "autoscale": SimulatedWorker._autoscale,
    "rate_limit": SimulatedWorker._rate_limit,
    "time_limit": SimulatedWorker._time_limit,
    "memsample": SimulatedWorker._memsample,
    "memdump": SimulatedWorker._memdump,
    "objgraph": SimulatedWorker._objgraph,
    "election": SimulatedWorker._election,
    "revoke_by_stamped_headers": SimulatedWorker._revoke_by_stamped_headers,
    "revoke": SimulatedWorker._revoke,
    "terminate": SimulatedWorker._terminate,
    "shutdown": SimulatedWorker._shutdown,
}
#: Answers that stay the same until `change`.
_STEADY = frozenset(
    {"ping", "active", "reserved", "scheduled", "revoked", "registered", "active_queues", "conf", "report"}
)


def _refuse_no_list(key: str, given: Any) -> None:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ValueError(f"{key} is {given!r}; write a list: [{given!r}]")


def _iso(eta: Any) -> str:
    """As a worker tells of it. Raises ValueError."""
    remedy = "write datetime.now(timezone.utc) + timedelta(minutes=5), say"
    if isinstance(eta, (int, float)) and -_LEAST_EPOCH < eta < _LEAST_EPOCH:
        raise ValueError(f"eta is {eta}, a time of 1970; write an epoch, time.time() + 300, say")
    try:
        time_ = datetime.fromtimestamp(eta, timezone.utc) if isinstance(eta, (int, float)) else None
        time_ = time_ or maybe_iso8601(eta)
    except (ValueError, TypeError, OverflowError, OSError):
        time_ = None
    if time_ is None:
        raise ValueError(f"eta is {eta!r}, which is no time; {remedy}")
    if isinstance(eta, datetime) and eta.tzinfo is None:
        raise ValueError(f"eta is {eta.isoformat()}, which has no time zone; {remedy}")
    return eta if isinstance(eta, str) else time_.isoformat()


def _name_of(queue: str | Mapping[str, Any]) -> str:
    return queue if isinstance(queue, str) else queue.get("name", "")


@lru_cache(maxsize=1)
def _builtin_tasks() -> tuple[str, ...]:
    app = celery.Celery("builtin tasks", set_as_current=False)
    return tuple(name for name in app.tasks if name.startswith("celery."))


@lru_cache(maxsize=1024)
def described(queue: str) -> dict[str, Any]:
    """A queue of this name as a worker describes it in `active_queues`."""
    told: dict[str, Any] = Queue(queue, Exchange(queue, type="direct"), routing_key=queue).as_dict(
        recurse=True
    )
    return told
