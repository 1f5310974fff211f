"""Whether the handlers of Celery's signals are there when a worker runs, and can do what they are for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from difflib import get_close_matches
from itertools import combinations

from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import is_name, listed, plural, short_name
from pytest_celery_health.facts import Ask, AskHandlers, Handler, Handlers, Snapshot, Unseen
from pytest_celery_health.signal_table import SIGNALS
from pytest_celery_health.spelling import article
from pytest_celery_health.verdict import Finding

#: The kinds of senders that can send a signal, by who sends it.
_CAN_SEND = {
    "task": ("task",),
    "task name": ("text",),
    "node name": ("text",),
    "command": ("function", "object"),
    "nobody": (),
}
_WANTED_SENDER = {
    "task": "the task itself",
    "task name": "the task's name",
    "node name": "the worker's node name",
    "nobody": "no sender, as Celery names none",
}


@dataclass(frozen=True)
class HandlersConnected(Check):
    """Signal handlers are connected as a worker starts, and each can be called.

    expected: handlers that must be connected, "signal:package.module:name".
    allow: handlers whose mistakes are accepted, "package.module:name".

    A handler that is neither expected nor the project's own is shown, and not judged.

    Source: the app, started in a sealed process as a worker starts, short of connecting to the broker.
    """

    _: KW_ONLY
    expected: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for entry in self.expected:
            signal, _, name = entry.partition(":")
            if not is_name(name):
                raise ValueError(f'expected has "{entry}"; write "task_failure:package.module:name"')
            if signal not in SIGNALS:
                near = get_close_matches(signal, SIGNALS, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f'expected has "{entry}", and Celery has no signal {signal}{hint}')
        for name in self.allow:
            if not is_name(name):
                raise ValueError(f'allow has "{name}"; write "package.module:name"')

    def asks(self) -> Iterable[Ask]:
        yield AskHandlers()

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        handlers = seen.handlers
        if isinstance(handlers, Unseen):
            yield Finding.unseen("", handlers, hint="handlers")
            return
        wanted = {(signal, name) for signal, _, name in (entry.partition(":") for entry in self.expected)}
        there = {
            (handler.signal, handler.name) for handler in handlers.seen if handler.state != "disconnected"
        }
        for signal, name in sorted(wanted - there):
            yield _missing(signal, name, handlers)
        judged = [
            handler
            for handler in handlers.seen
            if (handler.signal, handler.name) in wanted or (handler.own and handler.name not in self.allow)
        ]
        for handler in judged:
            yield from _mistakes(handler, handlers)
        yield from _twice(judged)
        shown = [handler for handler in handlers.seen if handler.own or handler in judged]
        if not shown and not wanted:
            yield Finding(None, "handlers", "the app connects none of its own")
            return
        connected = [handler.signal for handler in shown if handler.state == "connected"]
        yield Finding(
            True,
            plural(len(connected), "handler"),
            f"connected to {plural(len(set(connected)), 'signal')}",
            figures={"handlers": len(connected)},
        )

    def table(self, seen: Snapshot) -> Iterable[Sequence[str]]:
        handlers = seen.handlers
        if isinstance(handlers, Unseen) or not handlers.seen:
            return
        yield "signal", "handler", "sender", "kind", "held", "where"
        for handler in sorted(handlers.seen, key=lambda handler: (handler.signal, not handler.own)):
            held = "weakly" if handler.weak else "strongly"
            yield (
                handler.signal,
                handler.name,
                handler.sender or "any",
                f"{handler.kind}, retried" if handler.retry else handler.kind,
                held if handler.state == "connected" else handler.state,
                handler.where,
            )


def _missing(signal: str, name: str, handlers: Handlers) -> Finding:
    module = name.partition(":")[0]
    elsewhere = [handler for handler in handlers.seen if handler.name == name]
    gone = next((handler for handler in elsewhere if handler.signal == signal), None)
    names = [handler.name for handler in handlers.seen if handler.signal == signal and handler.name != name]
    near = [other for other in names if short_name(other) == short_name(name)]
    if module in handlers.modules:
        near += get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else ""
    if gone is not None:
        seen = f"is disconnected from {signal} again ({gone.where})"
    elif elsewhere:
        others = listed(sorted({handler.signal for handler in elsewhere}))
        seen = f"is not connected to {signal} but to {others} ({elsewhere[0].where})"
    elif module in handlers.modules:
        seen = f"is not connected to {signal}, though {module} is imported"
    else:
        seen = f"is not connected to {signal}: {module} is never imported"
        hint = hint or "add its module to imports or include, or import it where the app is made"
    return Finding(False, short_name(name), seen, "connected", hint)


def _mistakes(handler: Handler, handlers: Handlers) -> Iterator[Finding]:
    subject, signal, at = short_name(handler.name), handler.signal, f"({handler.where})"
    sent = SIGNALS.get(signal)
    if handler.state == "disconnected":
        return
    if handler.state == "collected":
        remedy = "keep its object" if handler.kind in ("method", "object") else "define it at module level"
        seen = f"was collected, as it is connected weakly to {signal} {at}"
        yield Finding(False, subject, seen, "connected", f"connect it with weak=False, or {remedy}")
    if handler.state == "shadowed":
        uid = f'its dispatch_uid "{handler.dispatch_uid}" is' if handler.dispatch_uid else "its identity is"
        seen = f"is not connected to {signal}: {uid} another handler's {at}"
        yield Finding(False, subject, seen, "connected", "give it a dispatch_uid of its own")
    if sent is not None and handler.sender:
        can = _CAN_SEND.get(sent.sender, (sent.sender,))
        if handler.sender_kind not in can:
            told = handler.sender_kind in ("object", "function")
            whom = handler.sender if told else f"{handler.sender}, {_a(handler.sender_kind)},"
            seen = f"is never called: connected to {signal} for {whom} which never sends it {at}"
            wanted = _WANTED_SENDER.get(sent.sender, f"no sender, as the {sent.sender} sends it")
            yield Finding(False, subject, seen, wanted)
    if handler.kind in ("async def", "generator"):
        what = "an async def" if handler.kind == "async def" else "a generator"
        seen = f"is {what}, so {signal} calls it and its body never runs {at}"
        yield Finding(False, subject, seen, "a plain function")
    if handler.by_position:
        seen = f"takes {listed(handler.by_position)} by position only {at}"
        yield Finding(False, subject, seen, "keywords, as signals pass nothing else")
    if sent is not None:
        known = {"signal", "sender", *sent.by(handlers.version)}
        never = [name for name in handler.needs if name not in known and name not in handler.by_position]
        if never:
            seen = f"needs {listed(never)}, which {signal} never sends {at}"
            yield Finding(False, subject, seen, listed(["sender", *sent.by(handlers.version)], "or"))
    if handler.retry:
        seen = f"has retry=True, connected to {signal} {at}"
        hint = "while it fails it is called again and again, and nothing else runs there"
        yield Finding(False, subject, seen, "retry=False", hint)


def _twice(handlers: Sequence[Handler]) -> Iterator[Finding]:
    """A handler that is called twice for one signal."""
    for one, other in combinations([h for h in handlers if h.state == "connected" and h.code], 2):
        if one.code != other.code or one.signal != other.signal:
            continue
        if one.sender and other.sender and one.sender != other.sender:
            continue
        subject = short_name(other.name)
        modules = one.name.partition(":")[0], other.name.partition(":")[0]
        if modules[0] != modules[1]:
            seen = f"is connected twice to {one.signal}, as {one.name} and as {other.name} ({other.where})"
            yield Finding(False, subject, seen, "once", "import its module by one name only")
        else:
            whom = " and ".join(f"for {each.sender or 'any sender'} at {each.where}" for each in (one, other))
            yield Finding(False, subject, f"is connected twice to {one.signal}: {whom}", "once")


def _a(noun: str) -> str:
    return noun if "'" in noun else article(noun)
