"""One simulated worker: its state, and what it answers to each command."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypedDict
from uuid import uuid4

import celery
from celery.events.event import Event
from celery.utils.time import rate, utcoffset
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
_RUSAGE = {
    **dict.fromkeys(("utime", "stime"), 0.1),
    "maxrss": 50_000,
    **dict.fromkeys(("ixrss", "idrss", "isrss", "minflt", "majflt", "nswap"), 0),
    **dict.fromkeys(("inblock", "oublock", "msgsnd", "msgrcv", "nsignals", "nvcsw", "nivcsw"), 0),
}


class State(TypedDict, total=False):
    """What a simulated worker says of itself. Durations are seconds.

    active, reserved, scheduled: the tasks it holds. A mapping in the place of a `RunningTask` may set any
        field of Celery's own description of a request (`name`, `args`, `delivery_info`, ...), and `eta`.
    queues: what it consumes; a mapping is given as it is.
    registered: its tasks; by default those that it holds or accepted.
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

    def __init__(self, fleet: Fleet, name: str, address: int, state: State) -> None:
        self.name = name
        self.address = address
        self._fleet = fleet
        self._state: State = dict(_DEFAULTS)  # type: ignore[assignment]
        self._pid = 10_000 + address
        self._said: dict[str, tuple[int, Any]] = {}
        self._sends_events = False
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
        """Say something else from now on. Raises TypeError for what no worker says of itself."""
        unknown = state.keys() - _DEFAULTS.keys()
        if unknown:
            raise TypeError(f"a simulated worker has no {sorted(unknown)[0]}; it has {', '.join(_DEFAULTS)}")
        new: State = {**self._state, **state}
        now = time.time() + new["clock_offset"]
        if "uptime" in state or not hasattr(self, "_started"):
            self._started = time.monotonic() - new["uptime"]
        told = {key: new[key] for key in state}  # type: ignore[literal-required]
        if told.keys() & {"active", "queues", "clock_offset"} or not hasattr(self, "_active"):
            self._active = [self._request(task, new, now) for task in new["active"]]
        if told.keys() & {"reserved", "queues"} or not hasattr(self, "_reserved"):
            self._reserved = [self._request(task, new, None) for task in new["reserved"]]
        if told.keys() & {"scheduled", "queues", "clock_offset"} or not hasattr(self, "_scheduled"):
            self._scheduled = [self._entry(task, new, now) for task in new["scheduled"]]
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

    def _request(
        self, task: RunningTask | Mapping[str, Any], state: State, now: float | None
    ) -> dict[str, Any]:
        if isinstance(task, RunningTask):
            task = {"name": task.name, "running_for": task.running_for, "id": task.id}
        given = dict(task)
        running_for = given.pop("running_for", None)
        given.pop("eta", None)
        name = given.get("name", "")
        queues = [queue if isinstance(queue, str) else queue.get("name", "") for queue in state["queues"]]
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

    def _entry(self, task: RunningTask | Mapping[str, Any], state: State, now: float) -> dict[str, Any]:
        eta = None if isinstance(task, RunningTask) else task.get("eta")
        if eta is None:
            eta = datetime.fromtimestamp(now, timezone.utc) + timedelta(minutes=1)
        return {
            "eta": eta if isinstance(eta, str) else eta.isoformat(),
            "priority": 6,
            "request": self._request(task, state, None),
        }

    def _ping(self, **_: Any) -> Any:
        return {"ok": "pong"}

    def _list_active(self, safe: bool = False, **_: Any) -> Any:
        if not safe:
            return self._active
        return [{**task, "args": repr(task["args"]), "kwargs": repr(task["kwargs"])} for task in self._active]

    def _list_reserved(self, **_: Any) -> Any:
        return self._reserved

    def _list_scheduled(self, **_: Any) -> Any:
        return self._scheduled

    def _list_revoked(self, **_: Any) -> Any:
        return []

    def _registered(self, **_: Any) -> Any:
        names = self._state["registered"]
        if names is None:
            held = [*self._active, *self._reserved, *(entry["request"] for entry in self._scheduled)]
            names = list({str(task["name"]) for task in held} | set(self._state["accepted"]))
        return sorted(names)

    def _active_queues(self, **_: Any) -> Any:
        return [described(queue) if isinstance(queue, str) else queue for queue in self._state["queues"]]

    def _conf(self, **_: Any) -> Any:
        return {"broker_url": self._fleet.masked_url, **self._state["conf"]}

    def _clock(self, **_: Any) -> Any:
        return {"clock": self._fleet.clock.value}

    def _hello(self, from_node: str, **_: Any) -> Any:
        return None if from_node == self.name else {"revoked": [], "clock": self._fleet.clock.forward()}

    def _report(self, **_: Any) -> Any:
        version = self._state["version"]
        return {
            "ok": f"\nsoftware -> celery:{version} py:{platform.python_version()}\n"
            f"platform -> system:{platform.system()}\n"
        }

    def _query_task(self, ids: Any, **_: Any) -> Any:
        wanted = {ids} if isinstance(ids, str) else set(ids)
        scheduled = [entry["request"] for entry in self._scheduled]
        held = (("scheduled", scheduled), ("reserved", self._reserved), ("active", self._active))
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
            "prefetch_count": state["pool_size"] * 4,
            "rusage": dict(_RUSAGE),
        }
        return {**stats, **state["stats"]}

    def _pool(self, pool: str, size: int) -> dict[str, Any]:
        info: dict[str, Any] = {"implementation": _POOLS.get(pool, pool), "max-concurrency": size}
        children = [self._pid + 1 + number for number in range(size)]
        if pool == "prefork":
            total = sum(self._state["accepted"].values())
            writes = {
                "total": total,
                "avg": f"{1 / size if size and total else 0:.2f}",
                "all": "",
                "raw": "",
                "strategy": "fair",
                "inqueues": {"total": size, "active": 0},
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

    def _add_consumer(self, queue: str, **_: Any) -> Any:
        self.change(queues=(*self._state["queues"], queue))
        return {"ok": f"add consumer {queue}"}

    def _cancel_consumer(self, queue: str, **_: Any) -> Any:
        kept = [one for one in self._state["queues"] if one != queue]
        self.change(queues=kept)
        return {"ok": f"no longer consuming from {queue}"}

    def _enable_events(self, **_: Any) -> Any:
        already, self._sends_events = self._sends_events, True
        return {"ok": "task events already enabled" if already else "task events enabled"}

    def _disable_events(self, **_: Any) -> Any:
        already, self._sends_events = not self._sends_events, False
        return {"ok": "task events already disabled" if already else "task events disabled"}

    def _pool_grow(self, n: int = 1, **_: Any) -> Any:
        self.change(pool_size=self._state["pool_size"] + n)
        return {"ok": "pool will grow"}

    def _pool_shrink(self, n: int = 1, **_: Any) -> Any:
        self.change(pool_size=max(self._state["pool_size"] - n, 0))
        return {"ok": "pool will shrink"}

    def _pool_restart(self, **_: Any) -> Any:
        raise ValueError("Pool restarts not enabled")

    def _autoscale(self, **_: Any) -> Any:
        raise ValueError("Autoscale not enabled")

    def _rate_limit(self, task_name: str, rate_limit: Any, **_: Any) -> Any:
        try:
            rate(rate_limit)
        except ValueError as error:
            return {"error": f"Invalid rate limit string: {error!r}"}
        if task_name not in self._registered():
            return {"error": "unknown task"}
        return {"ok": "new rate limit set successfully" if rate_limit else "rate limit disabled successfully"}

    def _time_limit(self, task_name: str = "", **_: Any) -> Any:
        known = task_name in self._registered()
        return {"ok": "time limits set successfully"} if known else {"error": "unknown task"}

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

    def _revoke(self, task_id: Any, terminate: bool = False, **_: Any) -> Any:
        ids = {task_id} if isinstance(task_id, str) else set(task_id or ())
        if not terminate:
            return {"ok": f"tasks {ids} flagged as revoked"}
        ended = [task["id"] for task in self._active if task["id"] in ids]
        self._active = [task for task in self._active if task["id"] not in ids]
        self._said.clear()
        return {"ok": f"terminate: {', '.join(ended) or 'tasks unknown'}"}

    def _terminate(self, task_id: Any, **_: Any) -> Any:
        return self._revoke(task_id, terminate=True)

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


@lru_cache(maxsize=1024)
def described(queue: str) -> dict[str, Any]:
    """A queue of this name as a worker describes it in `active_queues`."""
    told: dict[str, Any] = Queue(queue, Exchange(queue, type="direct"), routing_key=queue).as_dict(
        recurse=True
    )
    return told
