"""Whether the project's own health check says what is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar

from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import is_name, listed, more_than, plural
from pytest_celery_health.durations import Duration, seconds, spell
from pytest_celery_health.facts import Answer, Ask, AskProbe, Probe, Probed, Setting, Snapshot, Unseen
from pytest_celery_health.spelling import meant
from pytest_celery_health.verdict import Finding

#: The faults that a probe may be called in, and what is wrong then: "while ...".
FAULTS = {
    "broker_refuses": "the broker refuses connections",
    "broker_hangs": "the broker takes connections and never answers",
    "broker_hangs_after": "the broker stops in the middle of a reply",
    "broker_slow": "each reply of the broker is a second late",
    "broker_resets": "the broker resets every connection",
    "broker_closes": "the broker closes every connection",
    "broker_cuts": "connections to the broker are cut before it can answer",
    "broker_wrong_password": "the broker refuses the password",
    "broker_blocks": "the broker accepts no messages",
    "broker_restarts_empty": "the broker has lost what it held",
    "broker_fails_over": "the first of two brokers refuses connections",
    "backend_refuses": "the result backend refuses connections",
    "backend_hangs": "the result backend takes connections and never answers",
    "backend_hangs_after": "the result backend stops in the middle of a reply",
    "backend_slow": "each reply of the result backend is a second late",
    "backend_resets": "the result backend resets every connection",
    "backend_closes": "the result backend closes every connection",
    "backend_cuts": "connections to the result backend are cut before it can answer",
    "backend_wrong_password": "the result backend refuses the password",
    "host_refuses": "the host refuses connections",
    "host_hangs": "the host takes requests and never answers",
    "host_answers": "the host answers every request with status 500",
    "host_slow": "the host answers a second late",
    "no_workers": "there is no worker",
    "worker_killed": "every worker was killed",
    "worker_frozen": "every worker stands still",
    "warm_shutdown": "every worker is shutting down",
    "worker_busy_solo": "every worker is a solo one, busy with a task",
    "not_consuming": "no worker consumes a queue",
    "other_queue": "every worker consumes another queue",
    "pool_saturated": "every worker's pool is full of tasks that do not end",
    "pool_child_frozen": "every process of the workers' pools stands still",
    "pool_child_killed": "every process of the workers' pools was killed",
    "clock_skewed": "the workers' clocks are ten minutes ahead",
    "beat_stopped": "beat has ended",
    "beat_stalled": "beat stands still",
    "beat_twice": "there are two beats",
}
#: Other worlds that a health check is to be held against.
STATES = {
    "new_broker": "the broker has no queue yet",
    "queue_filled": "messages of all priorities wait in the queue",
    "queue_drained": "the messages that waited are gone",
    "beat_alone": "only beat answers, as it does from Celery 5.7 on",
    "task_runs": "a task has run for a while, and is not stuck yet",
    "task_stuck": "a task has run for too long",
    "heartbeat_young": "the heartbeat is almost too old",
    "heartbeat_old": "the heartbeat is a second too old",
    "heartbeat_day_old": "the heartbeat is exactly a day old",
    "heartbeat_second_ahead": "the heartbeat is a second in the future",
    "heartbeat_ahead": "the heartbeat is an hour in the future",
    "heartbeat_missing": "there is no heartbeat",
    "heartbeat_garbage": "the heartbeat is no time",
}
WORLDS = {**FAULTS, **STATES}


@dataclass(frozen=True)
class Worlds:
    """A ready-made set: where the check must be red, where green, and where no more than well-behaved."""

    unhealthy: tuple[str, ...] = ()
    healthy: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()


_AWAY = ("broker_refuses", "broker_hangs")

SETS = {
    "liveness": Worlds(healthy=(*_AWAY, "broker_wrong_password", "warm_shutdown", "worker_busy_solo")),
    "readiness": Worlds((*_AWAY, "broker_wrong_password", "no_workers", "not_consuming")),
    "worker_check": Worlds(
        (*_AWAY, "beat_alone", "no_workers", "worker_frozen", "not_consuming", "other_queue")
    ),
    "queue_check": Worlds(("queue_filled", *_AWAY), ("queue_drained",), ("new_broker",)),
    "beat_check": Worlds(
        (
            "heartbeat_old",
            "heartbeat_day_old",
            "heartbeat_ahead",
            "heartbeat_missing",
            "heartbeat_garbage",
            *_AWAY,
        ),
        ("heartbeat_young", "heartbeat_second_ahead"),
    ),
    "stuck_task_check": Worlds(("task_stuck", *_AWAY, "no_workers"), ("task_runs",)),
    "gauge": Worlds(_AWAY, ("queue_filled", "queue_drained")),
}
#: What is called, and exactly one of these in a row.
_WAYS = ("call", "wsgi", "asgi", "command")
_SHOWN = 100


@dataclass(frozen=True)
class ProbeTells(Check):
    """The project's own health check says what is, in time: green in a healthy world, red in each fault.

    call: "package.module:name": a function, async or not, or a class with `check_status()` or `run()`. It
        answers with a bool, a mapping with `healthy` or `status`, the status of a response, a list of what is
        wrong, figures of queues, or by raising, where it otherwise returns nothing or data.
    call_with: the arguments it is called with, by name.
    wsgi: "package.module:name" of an application, or "package.module:create()".
    asgi: the same.
    path: what the application is asked for.
    headers: of that request.
    reads_json: whether who asks reads the JSON of a response, too: then that must not say otherwise.
        Kubernetes and load balancers read the status alone.
    command: a command line; exit code 0 is healthy.
    answers_within: what a call may take in every world. It is killed some time later.
    unhealthy_when: the worlds in which it must say that it is unhealthy.
    stays_healthy_when: the worlds in which it must say that it is healthy.
    worlds: a ready-made set, to which the two lists add; for a world in a list, the list counts.
    may_raise: whether raising is an answer. Unless given: where it otherwise returns nothing or data.
    cpu_below: what a call may cost in processor time; a command's start counts.
    queue: the queue that is filled; unless given, the app's default.
    depth: with how many messages.
    stuck_after: when a task that still runs is stuck.
    heartbeat: beat's, as in a `beat` row; unless given, that row's.
    url: the Redis of the heartbeat, as there.
    fresh_for: how old it may be; unless given, what that row has as `within`.
    host: an HTTP host that it asks, or a domain for those below it: the one of the worlds `host_...`. In all
        others it answers with status 200.
    host_body: what it says with that status.
    gauge: the metric of prometheus_client that the call sets. What it shows is the answer.

    Each call is made in a sealed process of its own. Source: what it returned, raised, wrote and left there.
    """

    needs_sandbox: ClassVar[bool] = True

    _: KW_ONLY
    call: str = ""
    call_with: Mapping[str, Any] = field(default_factory=dict)
    wsgi: str = ""
    asgi: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    reads_json: bool = False
    command: tuple[str, ...] = ()
    answers_within: Duration = 5.0
    unhealthy_when: tuple[str, ...] = ()
    stays_healthy_when: tuple[str, ...] = ()
    worlds: str = ""
    may_raise: bool | None = None
    cpu_below: Duration | None = None
    queue: str = ""
    depth: int = 1001
    stuck_after: Duration = 300.0
    heartbeat: str = ""
    url: str = ""
    fresh_for: Duration | None = None
    host: str = ""
    host_body: str = "{}"
    gauge: str = ""

    def __post_init__(self) -> None:
        self._in_seconds("answers_within", "cpu_below", "stuck_after", "fresh_for")
        given = [way for way in _WAYS if getattr(self, way)]
        if len(given) != 1:
            said = f"{listed(given)} are given" if given else "nothing is to be called"
            raise ValueError(f'{said}; write one of {", ".join(_WAYS)}: call = "shop.health:check", say')
        way = given[0]
        named = getattr(self, way)
        if way != "command" and not is_name(named):
            raise ValueError(f'{way} is "{named}"; write "package.module:name"')
        if way in ("wsgi", "asgi") and not self.path.startswith("/"):
            raise ValueError(
                f'path is "{self.path}"; write the path that is asked for, path = "/healthz" say'
            )
        for key, ways in _OF_ONE_WAY.items():
            if getattr(self, key) and way not in ways:
                raise ValueError(f"{key} is for {listed(ways)} only, and this is {way}")
        for key in ("answers_within", "cpu_below", "stuck_after", "fresh_for"):
            if getattr(self, key) == 0:
                raise ValueError(f"{key} is 0, which nothing can meet")
        if self.depth < 1:
            raise ValueError(f"depth is {self.depth}; write 1 or more")
        if self.worlds and self.worlds not in SETS:
            hint = meant(self.worlds, SETS)
            raise ValueError(f'worlds is "{self.worlds}", which is no set of worlds; {hint}')
        if self.worlds == "gauge" and not self.gauge:
            raise ValueError(
                'gauge is missing, and worlds is "gauge"; write gauge = "celery_queue_length", say'
            )
        for key in ("unhealthy_when", "stays_healthy_when"):
            for world in getattr(self, key):
                _refuse_unknown(key, world)
        both = [world for world in self.unhealthy_when if world in self.stays_healthy_when]
        if both:
            raise ValueError(f"{both[0]} is in unhealthy_when and in stays_healthy_when")
        self._refuse_impossible()
        self._refuse_of_host()
        self._refuse_of_heartbeat()

    def _refuse_of_host(self) -> None:
        if self.host and (":" in self.host or "/" in self.host):
            raise ValueError(f'host is "{self.host}", which is no host; write host = "api.example.com", say')
        needs = next((world for world in self._wanted() if world.startswith("host_")), "")
        if needs and self.command:
            raise ValueError(
                f"command is a process that the host's answers, in {needs}, cannot be put into;"
                " name the function or the application behind it, with call, wsgi or asgi"
            )
        if needs and not self.host:
            raise ValueError(f'host is missing, and {needs} is named; write host = "api.example.com", say')

    def _refuse_of_heartbeat(self) -> None:
        scheme = self.heartbeat.partition(":")[0]
        for key in ("unhealthy_when", "stays_healthy_when"):
            if "heartbeat_garbage" in getattr(self, key) and scheme in _NEVER_GARBAGE:
                raise ValueError(
                    f'{key} has "heartbeat_garbage", and the heartbeat is {self.heartbeat}:'
                    f" {_NEVER_GARBAGE[scheme]}; remove it from {key}"
                )
        if scheme == "call" and self.command and self.needs_heartbeat:
            raise ValueError(
                f"command has a clock of its own, and what {self.heartbeat} tells is aged by the clock of the"
                " probe; name the function behind it, with call"
            )

    def _refuse_impossible(self) -> None:
        try:
            json.dumps(dict(self.call_with))
        except TypeError as error:
            raise ValueError(f"call_with: {error}; it crosses to another process as JSON") from None

    @property
    def probe(self) -> Probe:
        """What is called."""
        return Probe(
            self.call,
            json.dumps(dict(self.call_with), sort_keys=True),
            self.wsgi,
            self.asgi,
            self.path,
            tuple(sorted(self.headers.items())),
            self.command,
            self.gauge,
            self.host,
            self.host_body if self.host else "",
        )

    @property
    def needs_heartbeat(self) -> bool:
        """Whether one of its worlds is about beat's heartbeat."""
        return any(world.startswith("heartbeat_") for world in self._wanted())

    @property
    def _setting(self) -> Setting:
        fresh_for = 120.0 if self.fresh_for is None else seconds(self.fresh_for)
        return Setting(self.queue, self.depth, seconds(self.stuck_after), self.heartbeat, self.url, fresh_for)

    def _wanted(self) -> dict[str, bool | None]:
        """The worlds, and whether it must be healthy there; None: either."""
        ready = SETS.get(self.worlds, Worlds())
        found: dict[str, bool | None] = {
            **dict.fromkeys(ready.tried, None),
            **dict.fromkeys(ready.unhealthy, False),
            **dict.fromkeys(ready.healthy, True),
            **dict.fromkeys(self.unhealthy_when, False),
            **dict.fromkeys(self.stays_healthy_when, True),
        }
        if self.heartbeat.partition(":")[0] in _NEVER_GARBAGE:
            found.pop("heartbeat_garbage", None)
        return found

    def asks(self) -> Iterable[Ask]:
        yield AskProbe(self.probe, tuple(self._wanted()), seconds(self.answers_within), self._setting)

    # The verdict.

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        name = self.probe.name
        probed = seen.fact(Probed, probe=self.probe, setting=self._setting)
        if isinstance(probed, Unseen):
            yield Finding.unseen(name, probed)
            return
        wanted: dict[str, bool | None] = {"": True, **self._wanted()}
        answers = self._answers(probed)
        usual = answers.get("", Answer(""))
        right = 0
        unseen: dict[str, list[str]] = {}
        untried = [f"{world}: {answer.impossible}" for world, answer in answers.items() if answer.impossible]
        for world, healthy in wanted.items():
            answer = answers.get(world) or Answer(world, unseen="it was not called there")
            if answer.impossible:
                continue
            if answer.unseen:
                unseen.setdefault(answer.unseen, []).append(world or "a healthy world")
                continue
            found = [*self._of(answer, healthy, usual)]
            right += not found
            yield from found
        for why, worlds in unseen.items():
            where = "" if len(worlds) == len(wanted) else f"{listed(worlds)}: "
            yield Finding(None, name, f"{where}{why}")
        figures: dict[str, float | str] = {}
        for world, answer in answers.items():
            figures |= {f"{world or 'healthy'}.{key}": value for key, value in _figures(answer).items()}
        told = f"in {right} of {plural(len(wanted) - len(untried), 'world')}"
        hint = f"not tried: {'; '.join(untried)}" if untried else ""
        yield Finding(True, name, f"says what is {told}", hint=hint, figures=figures)

    def _answers(self, probed: Probed) -> dict[str, Answer]:
        """By world, each with the verdict of who asks. What must be tried and is impossible is unseen."""
        spared = self._spared(probed)
        found = {answer.world: self._read(answer) for answer in probed.seen}
        for world, answer in found.items():
            if answer.impossible and world not in spared:
                found[world] = replace(answer, unseen=answer.impossible, impossible="")
        return found

    def _spared(self, probed: Probed) -> set[str]:
        """The worlds that only the set has brought in, if any of it was tried."""
        ready = SETS.get(self.worlds, Worlds())
        of_set = {*ready.unhealthy, *ready.healthy, *ready.tried}
        tried = (answer.world for answer in probed.seen if not (answer.unseen or answer.impossible))
        if of_set.isdisjoint(tried):
            return set()
        return of_set.difference(self.unhealthy_when, self.stays_healthy_when)

    def _read(self, answer: Answer) -> Answer:
        counts = self.reads_json and answer.json and answer.verdict == "healthy"
        return replace(answer, verdict=answer.json) if counts else answer

    def _of(self, answer: Answer, healthy: bool | None, usual: Answer) -> Iterator[Finding]:
        """What is wrong with one answer, what it says first."""
        name = self.probe.name
        in_ = _in(answer.world)
        within = seconds(self.answers_within)
        in_time = f"an answer within {spell(within)}"
        at = f", at {answer.where}" if answer.where else ""
        if answer.verdict == "hung":
            yield Finding(False, name, f"hung {in_}{at}", in_time)
        elif answer.verdict == "crashed":
            yield Finding(False, name, f"ended its process {in_}", "an answer", _short(answer.said))
        elif answer.verdict == "unclear":
            yield Finding(None, name, f"says {_short(answer.said)} {in_}, which is neither healthy nor not")
        elif answer.verdict == "raised" and (healthy is True or not self._raises(usual)):
            yield Finding(False, name, f"raised {_short(answer.said)} {in_}{at}", "an answer")
        else:
            finding = self._lie(answer, healthy, usual)
            if finding is not None:
                yield finding
        if answer.verdict != "hung" and answer.took > within:
            took = f"took {more_than(within, answer.took)} {in_}"
            yield Finding(False, name, took, in_time)
        for what in answer.left:
            yield Finding(False, name, f"leaves {what} {in_}", "nothing left behind")
        for place in answer.shows:
            yield Finding(False, name, f"shows the broker's password in its {place} {in_}", "it hidden")
        if not answer.world:
            yield from self._costs(answer)

    def _costs(self, answer: Answer) -> Iterator[Finding]:
        if self.cpu_below is None or answer.cpu is None:
            return
        limit = seconds(self.cpu_below)
        if answer.cpu >= limit:
            seen = f"takes {_milliseconds(answer.cpu)} of processor a call"
            wanted = f"below {_milliseconds(limit)}"
            yield Finding(False, self.probe.name, seen, wanted)

    def _raises(self, usual: Answer) -> bool:
        """Whether raising is its way to say that something is wrong."""
        return usual.kind != "verdict" if self.may_raise is None else self.may_raise

    def _told(self, answer: Answer, usual: Answer) -> bool:
        """Whether it says that all is well."""
        if answer.kind == "data" and self._looks_for_trouble(usual):
            return answer.said.startswith(_NOTHING)
        return answer.verdict == "healthy"

    def _looks_for_trouble(self, usual: Answer) -> bool:
        """Whether its data are what is wrong, as of what finds stuck tasks."""
        about_tasks = any(world.startswith("task_") for world in self._wanted())
        return about_tasks or (usual.kind == "data" and usual.said == _NOTHING)

    def _lie(self, answer: Answer, healthy: bool | None, usual: Answer) -> Finding | None:
        """What is wrong with what it says."""
        if answer.kind in ("data", "gauge") and answer.world in _COUNTED:
            return self._miscount(answer)
        told = self._told(answer, usual)
        if healthy is None or told == healthy:
            return None
        name, while_ = self.probe.name, self._while(answer.world)
        if answer.kind == "gauge":
            if not answer.world:  # it may have nothing to show
                return None
            return Finding(False, self.gauge, f"still shows {_shown(answer)} {while_}", "no value, or NaN")
        if told and answer.kind == "data":
            finds = answer.world == "task_stuck"
            wanted = "the task" if finds else "an error, or to be told of it"
            hint = "silence is no proof" if answer.said.startswith(_NOTHING) and not finds else ""
            said = _short(answer.said)
            says = said if said.startswith("found ") else f"says {said}"
            return Finding(False, name, f"{says} {while_}", wanted, hint)
        if told and answer.status and answer.json == "unhealthy":
            seen = f"answers {answer.status} {while_}, though its JSON says unhealthy"
            return Finding(False, name, seen, "unhealthy", _STATUS)
        if told:
            return Finding(False, name, f"says healthy {while_}", "unhealthy")
        seen = f"raised {_short(answer.said)}" if answer.verdict == "raised" else "says unhealthy"
        hint = "" if answer.verdict == "raised" else _short(answer.said)
        return Finding(False, name, f"{seen} {while_}", "healthy", hint)

    def _miscount(self, answer: Answer) -> Finding | None:
        held = answer.depth if answer.world == "queue_filled" else 0
        known = [each for each in answer.figures if each is not None]
        if held in known or (not known and not held and answer.verdict == "healthy"):
            return None
        name, while_ = self.gauge or self.probe.name, self._while(answer.world)
        shown = _shown(answer) if known else "no number"
        hints = [] if known or self.queue else ['another queue? write queue = "..."']
        if self.gauge and not answer.figures:
            hints.insert(0, "no registry that a module keeps has it")
        seen = f"shows {shown} for {answer.queue} {while_}"
        return Finding(False, name, seen, f"{held:,}", "; ".join(hints))

    def _while(self, world: str) -> str:
        if world not in WORLDS:
            return _in(world)
        what = WORLDS[world].replace("the host", self.host) if world.startswith("host_") else WORLDS[world]
        return f"while {what} ({world})"

    def table(self, seen: Snapshot) -> Iterable[Sequence[str]]:
        probed = seen.fact(Probed, probe=self.probe, setting=self._setting)
        if isinstance(probed, Unseen) or not probed.seen:
            return
        answers = self._answers(probed)
        usual = answers.get("", Answer(""))
        yield "world", "wanted", "verdict", "took", "note"
        for world, healthy in {"": True, **self._wanted()}.items():
            answer = answers.get(world)
            if answer is not None:
                findings = () if answer.unseen or answer.impossible else self._of(answer, healthy, usual)
                wrong = any(finding.ok is False for finding in findings)
                wanted, verdict = self._cells(answer, healthy, usual)
                took = "" if answer.unseen or answer.impossible else _took(answer.took)
                note = answer.unseen or answer.impossible or _short(answer.said) or answer.where
                yield world or "(healthy)", wanted, f"{verdict} !" if wrong else verdict, took, note

    def _cells(self, answer: Answer, healthy: bool | None, usual: Answer) -> tuple[str, str]:
        if answer.unseen or answer.impossible:
            return _WANTED[healthy], "?" if answer.unseen else "n/a"
        if answer.kind in ("data", "gauge") and answer.world in _COUNTED:
            return f"{answer.depth if answer.world == 'queue_filled' else 0:,}", _shown(answer) or "no number"
        if answer.kind == "gauge":
            return ("-" if not answer.world else "no value"), _shown(answer) or "no value"
        if answer.kind == "data" and answer.verdict in ("healthy", "unhealthy"):
            return _WANTED[healthy], "healthy" if self._told(answer, usual) else "unhealthy"
        return _WANTED[healthy], answer.verdict


_NOTHING = "found nothing"
_STATUS = "Kubernetes and load balancers read the status: answer 503, or set reads_json = true"
#: Heartbeats that are a time whatever is done, by their scheme, and why.
_NEVER_GARBAGE = {
    "file": "the time at which a file was changed is always a time",
    "call": "only the project knows how it is written, so that is for a test of its own",
}
_COUNTED = ("queue_filled", "queue_drained")
_WANTED = {True: "healthy", False: "unhealthy", None: "-"}
_OF_ONE_WAY = {
    "call_with": ("call",),
    "gauge": ("call",),
    "path": ("wsgi", "asgi"),
    "headers": ("wsgi", "asgi"),
    "reads_json": ("call", "wsgi", "asgi"),
}


def _refuse_unknown(key: str, world: str) -> None:
    if world in WORLDS or all(world.partition(":")):
        return
    raise ValueError(f'{key} has "{world}", in which no probe is called; {meant(world, WORLDS)}')


def _figures(answer: Answer) -> dict[str, float | str]:
    """What is told of a world in numbers; seconds, to the millisecond."""
    if answer.unseen or answer.impossible:
        return {"verdict": answer.verdict}
    cpu = {} if answer.cpu is None else {"cpu": round(answer.cpu, 3)}
    return {"verdict": answer.verdict, "took": round(answer.took, 3), **cpu}


def _in(world: str) -> str:
    return f"in {world}" if world else "in a healthy world"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _shown(answer: Answer) -> str:
    known = [f"{each:,.12g}" for each in answer.figures if each is not None]
    return listed(known, "or") if known else ""


def _took(value: float) -> str:
    return _milliseconds(value) if value < 0.1 else spell(round(value, 2))


def _milliseconds(value: float) -> str:
    return f"{value * 1000:,.0f} ms" if value < 10 else spell(value)
