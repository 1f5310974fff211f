"""What could not be seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that could not be seen, and why. `never`: this kind of target cannot show it at all."""

    why: str
    never: bool = False


NOT_ASKED = Unseen("no check asked for it")
NOT_COUNTED = Unseen("this broker does not count mailboxes")
