"""Keep passwords out of what people read. Standard library only."""

from __future__ import annotations

import re

# Greedy up to the last "@" of the word: a password may hold "/", ":" and "@" that nobody quoted.
_USERINFO = re.compile(r"(?<=://)([^\s:/@'\"]*):?[^\s'\"]*@")
_PARAMETER = re.compile(r"([?&][\w-]*(?:password|passwd|secret|token)[\w-]*=)[^&\s'\"]+", re.IGNORECASE)


def mask(text: str) -> str:
    """`text` with what stands before the "@" of every URL masked, and secret URL parameters."""
    return _PARAMETER.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))
