"""Names of hosts. Standard library only."""

from __future__ import annotations


def same_host(host: str, wanted: str) -> bool:
    """Whether `host` is `wanted` or a subdomain of it."""
    host, wanted = host.lower().rstrip("."), wanted.lower().rstrip(".")
    return host == wanted or host.endswith(f".{wanted}")
