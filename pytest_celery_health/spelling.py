"""The right word for a wrong one. Standard library only."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


def article(noun: str) -> str:
    """ "an int", "a str"."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def meant(word: str, known: Collection[str], *, quoted: bool = False, all_of: str = "there are") -> str:
    """ "did you mean billing?", or all that are known: "there are billing, invoices"."""
    near = get_close_matches(word, known, n=1)
    if not near:
        return f"{all_of} {', '.join(known) or 'none'}"
    return f"did you mean {near[0]!r}?" if quoted else f"did you mean {near[0]}?"
