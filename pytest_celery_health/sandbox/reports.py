"""What a sandbox's children report to its keeper, in the words of those who wait for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_celery_health.masking import mask
from pytest_celery_health.sandbox.client import Client
from pytest_celery_health.sandbox.errors import SandboxError, SpecError

TICK = 0.01
LOG_LINES = 15


class Reports:
    """What the children of one keeper have reported, from report number `seen` on.

    start_within: seconds that a child has for what is waited for; only worded here.
    password: of the broker, which no log line may show.
    """

    def __init__(self, client: Client, start_within: float, *, seen: int = 0, password: str = "") -> None:
        self.client = client
        self.start_within = start_within
        self.seen = seen
        self.password = password
        self._told: list[dict[str, Any]] = []

    def new(self) -> list[dict[str, Any]]:
        """What was reported since the last call."""
        events: list[dict[str, Any]] = self.client.ask("events", since=self.seen)["events"]
        self.seen += len(events)
        self._told += events
        return events

    def forget(self, *names: str) -> None:
        """Forget what these children reported, and what nobody has asked for yet: they start anew."""
        self.new()
        self._told = [event for event in self._told if event["name"] not in names]

    def ran(self) -> dict[str, str]:
        """The state in which each entry of the schedule that a worker ran has ended."""
        return {told["entry"]: told["state"] for told in self._told if told["what"] == "ran"}

    def exit_code(self, name: str) -> int | None:
        """How a child ended, -9 for SIGKILL; None while it runs."""
        self.new()
        codes = [event["code"] for event in self._told if event["name"] == name and event["what"] == "exit"]
        return codes[-1] if codes else None

    def wait(
        self, wanted: set[tuple[str, str]], over: float, *, needs: Iterable[str] = ()
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """All that was reported, by child and `what`, once it holds what is wanted.

        Raises SandboxError when one of these children, or one that they need, ends or tells what is wrong, or
        when something is still missing at `over`.
        """
        names = {*needs, *(name for name, _ in wanted)}
        while True:
            for event in self.new():
                if event["name"] in names:
                    self.raise_if_over(event)
            told = {(event["name"], what(event)): event for event in self._told}
            missing = sorted(wanted - told.keys())
            if not missing:
                return told
            self._raise_if_late(over, *missing[0])
            time.sleep(TICK)

    def raise_if_over(self, event: dict[str, Any]) -> None:
        """Raise for a child that cannot go on: none of them ends by itself."""
        name = event["name"]
        if event["what"] == "wrong":
            log = "" if self.tail(name) == event["why"] else self.because(name)
            message = f"{title(name)}: {event['why']}{log}"
            if "mistakes" in event:
                raise SpecError(message, event["key"], event["mistakes"])
            raise SandboxError(message)
        if event["what"] == "exit":
            # What it told before it ended may stand behind its end: two channels.
            for told in [*self._told, *self.new()]:
                if told["name"] == name and told["what"] == "wrong":
                    self.raise_if_over(told)
            how = f"ended with {ending(event['code'])} while it started"
            raise SandboxError(f"{title(name)} {how}" + self.last_word(name) + self.because(name))

    def _raise_if_late(self, over: float, name: str, wanted: str) -> None:
        if time.monotonic() > over:
            did = f"had not {wanted}" if wanted.startswith("sent ") else "did not answer"
            raise SandboxError(f"{title(name)} {did} within {self.start_within:g} s" + self.because(name))

    # Of their logs.

    def last_word(self, name: str) -> str:
        """What it said last, for the line that says that it ended."""
        words = self.tail(name).split("\n")
        last = next((word.strip() for word in reversed(words) if word.strip()), "")
        return f": {last[:200]}" if last else ""

    def because(self, name: str) -> str:
        """The last lines of its log, to stand below what it is said of."""
        tail = self.tail(name)
        return f"\nlast lines of {name}'s log:\n{tail}" if tail else ""

    def tail(self, name: str, lines: int = LOG_LINES) -> str:
        """The last lines of its log. Passwords are masked."""
        try:
            with (self.client.folder / f"{name}.log").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 1000 * lines))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        if self.password:
            text = text.replace(self.password, "***")
        return mask("\n".join(text.splitlines()[-lines:]))


def what(event: Mapping[str, Any]) -> str:
    """What a child said, in the words of those who wait for it: beat tells of each entry, sent or not."""
    said = str(event["what"])
    return f"sent {event['entry']}" if said in ("sent", "unsent") else said


def title(name: str) -> str:
    """A child, as a message names it."""
    return name if name.startswith(("beat", "broker")) else f"worker {name}"


def ending(code: int) -> str:
    """An exit code as it is read."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
