"""What a project's own health check said of worlds in which it was called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Probe:
    """A health check of the project's: exactly one of `call`, `wsgi`, `asgi` and `command`.

    call: "package.module:name" of a function, async or not, or of a class with `check_status()`.
    given: its keyword arguments, as JSON. wsgi, asgi: "package.module:name" of an application, whose `path`
    is asked for with `headers`. command: a command line, whose exit code is the verdict.
    gauge: the metric that the call is to set, and that says what there is to say.
    host: an HTTP host that is answered for in its process, with `host_body` where nothing is wrong with it.
    """

    call: str = ""
    given: str = "{}"
    wsgi: str = ""
    asgi: str = ""
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    gauge: str = ""
    host: str = ""
    host_body: str = ""

    @property
    def name(self) -> str:
        """As a reader knows it: "check_celery_health", "/healthz", "python -m shop.live"."""
        return " ".join(self.command) or self.path or self.call.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Setting:
    """What worlds are made with.

    queue: the one that is filled; "" is the app's default. depth: the messages in it.
    stuck_after: seconds after which a task that still runs is stuck.
    heartbeat, url: where beat's heartbeat is, as a `beat` row says it.
    fresh_for: seconds for which it is fresh.
    """

    queue: str = ""
    depth: int = 1001
    stuck_after: float = 300.0
    heartbeat: str = ""
    url: str = ""
    fresh_for: float = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the probe gave in one world.

    verdict: "healthy", "unhealthy", "unclear" (neither can be read in it), "raised", "hung" (it had to be
        killed) or "crashed" (its process ended); "" where it was not called.
    kind: "verdict", "data" (figures, a list: it says nothing of health in so many words) or "nothing" (None).
    status: the HTTP status of a response, by which alone `verdict` tells; 0 of what is none.
    json: the verdict of a response's JSON, "" where that has none.
    said: in short, without passwords; "found nothing" of an empty list.
    where: file:line at which it raised or hung.
    took: seconds, at least those after which it was killed. cpu: seconds of processor, None if unknown.
    figures: numbers that it gave of the queue; of a gauge, what it shows then, None for not a number.
    left: what it left behind: "the queue default". shows: where the broker's password is to be read.
    queue: the one that was filled. depth: with so many messages.
    unseen: why this world did not come about; impossible: why this broker cannot be brought there.
    """

    world: str
    verdict: str = ""
    kind: str = ""
    said: str = ""
    where: str = ""
    took: float = 0.0
    cpu: float | None = None
    figures: tuple[float | None, ...] = ()
    left: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    queue: str = ""
    depth: int = 0
    unseen: str = ""
    status: int = 0
    json: str = ""
    impossible: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    """The answers of one probe, in worlds that were made with one setting."""

    probe: Probe
    seen: tuple[Answer, ...]
    setting: Setting
