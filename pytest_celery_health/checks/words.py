"""Lists and counts in a finding's sentence."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_celery_health.durations import spell


def listed(each: Sequence[str], word: str = "and") -> str:
    """ "a, b and c"."""
    *most, last = each
    return f"{', '.join(most)} {word} {last}" if most else last


def first_names(each: Sequence[str], most: int = 5) -> str:
    """The first of them, and how many more there are."""
    rest = len(each) - most
    return ", ".join(each[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def is_name(name: str) -> bool:
    """Whether it is "package.module:name"."""
    return name.count(":") == 1 and all(name.partition(":"))


def short_name(name: str) -> str:
    """The name of "package.module:name" without its module, of which a finding's place tells."""
    return name.partition(":")[2]


def plural(count: int, one: str, many: str = "") -> str:
    """ "1 worker", "1,204 workers"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def silent(mailboxes: int) -> str:
    """ "1 mailbox is silent"."""
    return f"{plural(mailboxes, 'mailbox', 'mailboxes')} {'is' if mailboxes == 1 else 'are'} silent"


def more_than(limit: float, took: float) -> str:
    """Seconds that are too many, and seen to be: "3.4 s", "3 s and 12 ms"."""
    said = spell(round(took, 1))
    return said if said != spell(limit) else f"{said} and {(took - limit) * 1000:.0f} ms"
