"""Keeping passwords out of contracts and out of what is said about them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_USER_INFO = re.compile(r"://[^\s\"'@]*[:@][^\s\"']*@|://[^\s\"'@/]+@")
_QUERY = re.compile(r"([?&][^=&\s]*(?:pass|secret|token)[^=&\s]*=)[^&\s\"';]+", re.IGNORECASE)
_SECRET_NAME = re.compile(r"pass(word|wd|phrase)?$|secret|token", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` without what stands before the @ of its URLs, nor passwords in their queries."""
    return _QUERY.sub(r"\1***", _USER_INFO.sub("://***@", text))


def holds_password(text: str) -> bool:
    """Whether `text` is a URL, or a failover list of them, with a password.

    In doubt it is: a password may hold a slash or a semicolon that nobody encoded.
    """
    if "://" not in text:
        return False
    if _QUERY.search(text):
        return True
    return any(_authority_holds_password(part.partition("://")[2]) for part in (text, *text.split(";")))


def _authority_holds_password(rest: str) -> bool:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return bool(authority.rpartition("@")[0].partition(":")[2])
    _, colon, port = authority.rpartition(":")
    return bool("@" in rest and colon and not port.isdigit() and not port.endswith("]"))


def secrets_in(options: Mapping[str, Any], around: str = "") -> Iterator[str]:
    """The keys of `options` whose value is a password, written out."""
    for key, value in options.items():
        name = f"{around}{key}"
        if isinstance(value, Mapping):
            yield from secrets_in(value, f"{name}.")
        elif not isinstance(value, str) or value.startswith("env:"):
            continue
        elif (_SECRET_NAME.search(key) and value) or holds_password(value):
            yield name
