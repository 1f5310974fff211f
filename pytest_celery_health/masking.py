"""Keeps passwords out of every message. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl, quote, quote_plus, unquote

HIDDEN = "***"

_SECRET_NAME = re.compile(r"pass(word|wd|phrase)?$|^pw$|secret|token|credential|access_?key", re.IGNORECASE)
_URL = re.compile(r"\w[\w+.-]*://[^\s'\"]+")


def masked_url(url: str) -> str:
    """`url`, or each of a failover list, without its passwords."""
    return ";".join(_masked(each) for each in url.split(";"))


def secrets_in(*sources: object) -> tuple[str, ...]:
    """Every password in URLs and in mappings of options (also nested), longest first."""
    found: set[str] = set()
    for source in sources:
        found.update(_secrets(source))
    return tuple(sorted(found - {""}, key=len, reverse=True))


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with the passwords of every URL and each of `secrets` hidden, percent-encoded or not.

    A secret of one to three characters is hidden where it stands as a word, else half the text would go.
    """
    for secret in secrets:
        for form in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}:
            if len(form) > 3:
                text = text.replace(form, HIDDEN)
            elif form:
                text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", lambda _: HIDDEN, text)
    return _URL.sub(lambda url: masked_url(url[0]), text)


def _split(url: str) -> tuple[str, str, str, str]:
    """Scheme with "://", userinfo, the rest, and the query. A password may hold "/", "#", "@" and "?"
    that should have been encoded, so urlsplit would cut it in two."""
    scheme, sign, rest = url.partition("://")
    if not sign:
        scheme, rest = "", url
    head, mark, query = rest.partition("?")
    if "@" not in head and "@" in query:
        head, mark, query = rest, "", ""
    userinfo, _, place = head.rpartition("@")
    return scheme + sign, userinfo, place, query if mark else ""


def _masked(url: str) -> str:
    scheme, userinfo, place, query = _split(url)
    user, colon, _ = userinfo.partition(":")
    who = f"{user}:{HIDDEN}@" if colon else f"{HIDDEN}@" if user else ""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    shown = "&".join(
        f"{name}={HIDDEN}" if _SECRET_NAME.search(name) else f"{name}{sign}{value}"
        for name, sign, value in pairs
    )
    return f"{scheme}{who}{place}" + (f"?{shown}" if shown else "")


def _secrets(source: object) -> Iterator[str]:
    if isinstance(source, str):
        for url in source.split(";"):
            _, userinfo, _, query = _split(url)
            user, colon, password = userinfo.partition(":")
            yield from {password, unquote(password)} if colon else {user, unquote(user)}
            for name, value in parse_qsl(query):
                if _SECRET_NAME.search(name):
                    yield value
    elif isinstance(source, Mapping):
        for name, value in source.items():
            if isinstance(value, Mapping):
                yield from _secrets(value)
            elif isinstance(value, (str, bytes)):
                text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
                if _SECRET_NAME.search(str(name)):
                    yield text
                elif "://" in text:
                    yield from _secrets(text)
