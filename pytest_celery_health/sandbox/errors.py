"""What can be wrong with a sandbox."""

from __future__ import annotations

from collections.abc import Iterable


class SandboxError(Exception):
    """The sandbox could not be started or joined.

    The message starts with the evidence, ends with the last lines of the child's log, and holds no password.
    """


class SpecError(SandboxError):
    """What the sandbox is to hold is not there: `mistakes` says what is wrong.

    key: of the spec, or "app".
    """

    def __init__(self, message: str, key: str, mistakes: Iterable[str]) -> None:
        super().__init__(message)
        self.key = key
        self.mistakes = tuple(mistakes)
