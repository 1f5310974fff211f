"""What a health check's answer means, in whatever way the project gives it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from enum import Enum
from typing import Any

#: Keys whose value is the verdict.
_KEYS = ("healthy", "is_healthy", "ok", "status", "state", "health")
_GOOD = frozenset(
    [
        "ok",
        "okay",
        "healthy",
        "up",
        "pass",
        "passing",
        "passed",
        "success",
        "green",
        "alive",
        "ready",
        "true",
        "yes",
        "good",
        "available",
        "working",
    ]
)
_BAD = frozenset(
    [
        "error",
        "fail",
        "failed",
        "failing",
        "failure",
        "unhealthy",
        "down",
        "critical",
        "red",
        "dead",
        "false",
        "no",
        "bad",
        "unavailable",
        "degraded",
        "broken",
        "stale",
        "missing",
        "unknown",
        "timeout",
    ]
)
_ERRORS = ("error", "errors", "exception")


#: Said of an answer that holds nothing, which is good of what looks for trouble, and bad of what lists.
NOTHING = "found nothing"


@dataclass(frozen=True)
class Meaning:
    """verdict: "healthy", "unhealthy", or "unclear". kind: "verdict" where the answer is one, "data" where it
    is figures or a list, "nothing" where only not raising says anything. said: the answer in short.
    status, json: of a response, what HTTP says, and the verdict of its JSON, "" where that has none."""

    verdict: str
    kind: str
    said: str
    status: int = 0
    json: str = ""


def meaning(found: Any) -> Meaning:
    """What `found` says."""
    if hasattr(found, "status_code") or _is_flask(found):
        return _of_response(found)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], bool):
        return Meaning(_spell(found[0]), "verdict", str(found[1]))
    if isinstance(found, bool):
        return Meaning(_spell(found), "verdict", str(found))
    if found is None:
        return Meaning("healthy", "nothing", "")
    if isinstance(found, Enum):
        found = found.value
    if isinstance(found, (str, bytes)):
        held = _json(found)
        if isinstance(held, Mapping):
            return _of_mapping(held)
        text = _text(found)
        return Meaning(_word(text), "verdict", text)
    if isinstance(found, (list, tuple, set, frozenset)):
        wrong = _wrong(found)
        said = f"found {len(found)}: {wrong}" if wrong else f"found {len(found)}" if found else NOTHING
        return Meaning(_spell(bool(found) and not wrong), "data", said)
    if isinstance(found, Mapping):
        return _of_mapping(found)
    if isinstance(found, (int, float)):
        return Meaning(_spell(not _wrong(found)), "data", str(found))
    if is_dataclass(found) and not isinstance(found, type):
        return _of_mapping(asdict(found))
    for key in _KEYS:
        if hasattr(found, key):
            return _of_mapping({key: getattr(found, key)})
    return Meaning("unclear", "data", f"a {type(found).__name__}")


def figures(found: Any, queue: str) -> list[float]:
    """The numbers that it gives of a queue: under the queue's name, or the answer itself."""
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        return [float(found)]
    return [number for entry in _entries(found, queue) for number in _numbers(entry)]


def _entries(found: Any, queue: str) -> Iterator[Any]:
    if isinstance(found, Mapping):
        if queue in found:
            yield found[queue]
        if queue in (value for value in found.values() if isinstance(value, str)):
            yield found
        for value in found.values():
            if isinstance(value, (Mapping, list, tuple)):
                yield from _entries(value, queue)
    elif isinstance(found, (list, tuple)):
        if found and found[0] == queue:
            yield found
        for value in found:
            yield from _entries(value, queue)


def _numbers(found: Any) -> Iterator[float]:
    if isinstance(found, bool):
        return
    if isinstance(found, (int, float)):
        yield float(found)
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from _numbers(value)
    elif isinstance(found, (list, tuple)):
        for value in found:
            yield from _numbers(value)


def _spell(good: bool) -> str:
    return "healthy" if good else "unhealthy"


def _word(value: Any) -> str:
    text = str(value).strip().lower()
    if text in _GOOD or text.partition(":")[0] in _GOOD:
        return "healthy"
    return "unhealthy" if text in _BAD or text.partition(":")[0] in _BAD else "unclear"


def _of_mapping(found: Mapping[Any, Any]) -> Meaning:
    said = _short(found)
    if found and all(isinstance(each, (list, tuple, Mapping)) and not each for each in found.values()):
        said = f"{NOTHING} in {', '.join(map(str, found))}"
    by_lower = {str(key).lower(): value for key, value in found.items()}
    for key in _KEYS:
        if key not in by_lower:
            continue
        value = by_lower[key].value if isinstance(by_lower[key], Enum) else by_lower[key]
        if isinstance(value, bool):
            return Meaning(_spell(value), "verdict", said)
        if isinstance(value, int):
            return Meaning(_spell(value < 400), "verdict", said)
        if isinstance(value, str):
            return Meaning(_word(value), "verdict", said)
    wrong = _wrong(found)
    return Meaning(_spell(bool(found) and not wrong), "data", wrong or (said if found else NOTHING))


def _wrong(found: Any, path: str = "", *, own: bool = False) -> str:
    """What of data is not known, or an error, with the path to it; "" if nothing is.

    own: whether it is a worker's own account of itself, in which None is a detail.
    """
    if isinstance(found, Mapping):
        for key in _ERRORS:
            if found.get(key):
                return f"{_joined(path, key)}: {found[key]}"
        parts = (
            _wrong(value, _joined(path, key), own=own or (_is_worker(key) and value is not None))
            for key, value in found.items()
            if key not in _ERRORS
        )
        return next(filter(None, parts), "")
    if isinstance(found, (list, tuple, set, frozenset)):
        parts = (_wrong(value, f"{path}[{index}]", own=own) for index, value in enumerate(found))
        return next(filter(None, parts), "")
    if isinstance(found, BaseException):
        return f"{path}: {type(found).__name__}: {found}"
    if isinstance(found, float) and math.isnan(found):
        return f"{path} is NaN"
    return f"{path} is None" if found is None and not own else ""


def _joined(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _is_worker(key: Any) -> bool:
    """Whether it is how Celery names workers: name@host."""
    name, at, host = key.partition("@") if isinstance(key, str) else ("", "", "")
    return bool(name and at and host) and not any(map(str.isspace, key))


def _is_flask(found: Any) -> bool:
    """Whether it is what a view of Flask's may return: a body and a status."""
    return (
        isinstance(found, tuple)
        and len(found) in (2, 3)
        and isinstance(found[0], (str, bytes, Mapping))
        and isinstance(found[1], int)
        and not isinstance(found[1], bool)
        and 100 <= found[1] < 600
    )


def _of_response(found: Any) -> Meaning:
    status, body = (found[1], found[0]) if isinstance(found, tuple) else (found.status_code, _body(found))
    status = int(status)
    said = f"HTTP {status}"
    error = getattr(found, "error", None)
    if isinstance(error, BaseException):
        return Meaning(
            "unhealthy", "verdict", f"{said}, as it raised {type(error).__name__}: {error}", status
        )
    said = f"{said} {_text(body)}".strip()
    content = body_of(found)
    of_json = _of_mapping(content) if isinstance(content, Mapping) else None
    told = of_json.verdict if of_json is not None and of_json.kind == "verdict" else ""
    return Meaning(_spell(status < 400), "verdict", said, status, told)


def body_of(found: Any) -> Any:
    """What an answer holds, for who looks for figures or secrets: text, or a response's body, as JSON if it
    is."""
    if hasattr(found, "status_code") or _is_flask(found):
        found = found[0] if isinstance(found, tuple) else _body(found)
    return _json(found) if isinstance(found, (str, bytes)) else found


def _json(text: str | bytes) -> Any:
    """What JSON says; other text as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text if isinstance(text, str) else text.decode(errors="replace")


def _body(found: Any) -> Any:
    for name in ("body", "content", "data", "text"):  # ours and Starlette's, Django's, Flask's
        value = getattr(found, name, None)
        if isinstance(value, (str, bytes)):
            return value
    return b""


def _text(body: Any) -> str:
    if isinstance(body, Mapping):
        return _short(body)
    return " ".join((body if isinstance(body, str) else body.decode(errors="replace")).split())


def _short(found: Mapping[Any, Any]) -> str:
    """The reason, where one is given."""
    for key in (*_ERRORS, "message", "detail", "reason"):
        if found.get(key):
            return str(found[key])
    return ", ".join(f"{key}: {value}" for key, value in found.items())
