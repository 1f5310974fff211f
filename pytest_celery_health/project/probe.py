"""Call a health check of the project in a session of its own, each call with a hard deadline.

Standard library only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from pytest_celery_health.facts import Answer, Probe
from pytest_celery_health.masking import mask
from pytest_celery_health.project import values
from pytest_celery_health.project.info import ProjectError
from pytest_celery_health.project.sessions import Sessions

#: What `Sessions` has to be at work at, to have callers.
WORK = "pytest_celery_health.project.child.probe:probe"
#: Seconds that a session gets to do what a world asks of it.
_PATIENCE = 15.0


def give_up_after(within: float) -> float:
    """Seconds after which a call is killed that should have taken `within`: late is not hung."""
    return within + max(1.0, within / 4)


class Caller:
    """A session in which a health check is called, as often as asked.

    Raises ProjectError when the health check does not load.
    """

    def __init__(self, sessions: Sessions, probe: Probe) -> None:
        self._session = sessions.open(
            call=probe.call,
            given=json.loads(probe.given),
            wsgi=probe.wsgi,
            asgi=probe.asgi,
            path=probe.path,
            headers=dict(probe.headers),
            gauge=probe.gauge,
            host=probe.host,
            host_body=probe.host_body,
        )

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def see(self, at: float | None, host_fault: str) -> None:
        """Have calls from now on see another time, and another host. Raises ProjectError.

        at: the time, in seconds since 1970, that the project's code sees; None is the real one.
        host_fault: the fault of the probe's host; without it the host answers.
        """
        self.do("see", at=at, host_fault=host_fault)

    def call(self, world: str, *, within: float, queue: str) -> tuple[Answer, dict[str, Any]]:
        """The answer, and what else was seen in the process: how many `threads` and
        `sockets` it has now, and `before` the call.

        A call that is not over long after `within` seconds is killed.
        """
        give_up = give_up_after(within)
        began = time.monotonic()
        try:
            heard = self._session.ask("call", within=give_up + 1.0, gives_up=give_up, queue=queue)
        except ProjectError:
            words = "".join(self._session.last_words(1))
            return Answer(world, "crashed", said=mask(words), took=time.monotonic() - began), {}
        if heard is None:
            place = self._session.where()
            self.close()
            return Answer(world, "hung", where=place, took=time.monotonic() - began), {}
        said = dict(heard)
        if "gauge" in said:
            said = _by_gauge(said)
        answer = Answer(
            world,
            said["verdict"],
            said.get("kind", ""),
            said["said"],
            said.get("where", ""),
            said["took"],
            said["cpu"],
            tuple(said.get("figures", ())),
            shows=tuple(said["shows"]),
            status=said.get("status", 0),
            json=said.get("json", ""),
        )
        return answer, said

    def told(self) -> tuple[Any, str]:
        """What the function returns: a number, a text, a date. And why it may be None for ever, "" if nothing
        speaks for that. Raises ProjectError."""
        said = self.do("tell")
        return values.parse(said["value"]), said["alone"]

    def left(self) -> Mapping[str, int]:
        """How many `threads` and `sockets` its process has now. Raises ProjectError."""
        return self.do("left")

    def do(self, what: str, **arguments: Any) -> Mapping[str, Any]:
        """Have the app's own means do something. Raises ProjectError."""
        try:
            said = self._session.ask(what, within=_PATIENCE, **arguments)
        except ProjectError as error:
            raise ProjectError(f"{what} failed: {error}") from error
        if said is None:
            raise ProjectError(f"{what} did not end within {_PATIENCE:g} s")
        if "error" in said:
            raise ProjectError(f"{what} failed: {said['error']}")
        return said

    def close(self) -> None:
        """End it. It may be called twice."""
        self._session.close()


def _by_gauge(said: dict[str, Any]) -> dict[str, Any]:
    """`said`, the verdict that of the gauge: it is believed when it shows a number."""
    shown = said["gauge"]
    if said["verdict"] == "raised" and not any(each is not None for each in shown):
        return {**said, "figures": shown}
    text = ", ".join("NaN" if each is None else f"{each:,.12g}" for each in shown) or "no such gauge"
    number = bool(shown) and all(each is not None for each in shown)
    verdict = "healthy" if number else "unhealthy"
    return {**said, "verdict": verdict, "kind": "gauge", "said": f"shows {text}", "figures": shown}
