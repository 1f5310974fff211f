"""Passwords in what the user's code said, where nobody knows them beforehand."""

from __future__ import annotations

import re

from pytest_celery_health import masking

_URL = re.compile(r"\w[\w+.-]*://[^\s'\"]+")


def mask(text: str) -> str:
    """`text` with the passwords of all its URLs hidden, also of those that nobody encoded."""
    return _URL.sub(lambda url: masking.masked_url(url[0]), text)
