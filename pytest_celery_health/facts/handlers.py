"""What the handlers of signals are, and what they did when they were tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Handler:
    """One receiver that the code of a worker connects to one signal of Celery.

    name: "package.module:qualified.name". where: "file:line" of the call that connects it.
    sender: as a reader knows it; "" is every sender. sender_kind: "task" (one of the app's), "text",
        "class", "app", "consumer", "worker", ..., "" for every sender.
    kind: "function", "lambda", "method", "partial", "object", "class"; "async def" or "generator" for what
        does not run when it is called.
    needs: parameters without a default. by_position: those of them that no keyword can fill.
    state: "connected", "collected" (by the garbage collector), "shadowed" (another handler has its
        place), or "disconnected".
    code: handlers of one number are the same code; 0 is like no other.
    own: whether the project's own code is it or connects it.
    """

    signal: str
    name: str
    where: str = ""
    sender: str = ""
    sender_kind: str = ""
    kind: str = "function"
    needs: tuple[str, ...] = ()
    by_position: tuple[str, ...] = ()
    weak: bool = True
    retry: bool = False
    dispatch_uid: str = ""
    state: str = "connected"
    code: int = 0
    own: bool = True


@dataclass(frozen=True, slots=True)
class Handlers:
    """The receivers of every signal as a starting worker has them, in the order of their connecting.

    modules: what was imported. version: of the Celery that would send.
    """

    seen: tuple[Handler, ...] = ()
    modules: frozenset[str] = frozenset()
    version: str = ""


@dataclass(frozen=True, slots=True)
class Leak:
    """A secret that left in clear: the value of the argument `key`, or what the text of an exception held for
    the key "exception". to: the host of the request that held it; "" for a log record."""

    key: str
    to: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a handler with a payload that Celery sends, every HTTP request answered in its process.

    task: whose signal it was. payload: what was special about it, in words, or "". rare: whether few people
        know that Celery sends it.
    retries: of the task's request, where the signal is task_retry; most: how many Celery makes of this task
        at most, None for no end.
    at_fault: the host of the alert server that did not do its work, or "".
    does: what it was seen to do: the hosts it asked, "log LEVEL", "metric NAME", "a task".
    failed: the hosts that gave it no answer, or an error's.
    took: seconds, the waiting for a server that hangs included. It was not really waited for.
    unbounded: the hosts that it asked without a timeout.
    stuck: where it was ("file:line") when it was given up; "" when it ended.
    error: what it did, such as "raised KeyError: 'x'". doubt: why that may not be its own mistake.
    logged: whether a log record of WARNING or above was written.
    """

    task: str = ""
    payload: str = ""
    rare: bool = False
    retries: int | None = None
    most: int | None = None
    at_fault: str = ""
    does: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    took: float = 0.0
    unbounded: tuple[str, ...] = ()
    stuck: str = ""
    error: str = ""
    doubt: str = ""
    logged: bool = False
    leaks: tuple[Leak, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """The calls of one handler for one signal.

    name, where, own: as of a `Handler`. unseen: why it was not called, or not any more.
    skipped: "file:line" of its code that no call came to, for one that was not seen to do anything.
    would: the name of no task for which it would do something.
    """

    signal: str
    name: str
    where: str = ""
    own: bool = True
    calls: tuple[Call, ...] = ()
    unseen: str = ""
    skipped: str = ""
    would: str = ""


@dataclass(frozen=True, slots=True)
class Trials:
    """Handlers of signals about tasks, put to the test. tasks: how many the app defines."""

    seen: tuple[Trial, ...] = ()
    tasks: int = 0
