"""Beat's heartbeat, written as the project writes it, as of another time."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pytest_celery_health.facts import Unseen
from pytest_celery_health.observe.beat.times import MILLISECONDS_ABOVE, moment
from pytest_celery_health.sandbox.faults import FaultError

if TYPE_CHECKING:
    from redis import Redis

GARBAGE = "celery-health: not a time"
_NUMBER = re.compile(r"\d+(\.\d+)?")


class Heartbeat(Protocol):
    """Where it is. `age` None is a heartbeat that is not there, NaN one that is no time."""

    def is_there(self) -> bool: ...

    def write(self, age: float | None) -> None: ...

    def is_ours(self) -> bool:
        """Whether it is what was written last: the project's own beat may write, too."""
        ...

    def put_back(self) -> None: ...


class Key:
    """A key of the sandbox's Redis."""

    def __init__(self, client: Redis, key: str) -> None:
        self._client = client
        self._key = key
        self._sample: bytes | None = None
        self._left = -1
        self._written: bytes | None = None

    def is_there(self) -> bool:
        found: Any = self._client.get(self._key)
        left: Any = self._client.ttl(self._key)
        self._sample, self._left = found, int(left)
        return self._sample is not None

    def write(self, age: float | None) -> None:
        if self._sample is None and not self.is_there():
            raise FaultError(f"nobody has written the heartbeat {self._key}, so its form is not known")
        assert self._sample is not None
        if age is None:
            self._client.delete(self._key)
            self._written = None
        else:
            text = self._sample.decode(errors="replace")
            said = GARBAGE if age != age else like(text, time.time() - age, self._key)
            self._written = said.encode()
            self._client.set(self._key, self._written)

    def is_ours(self) -> bool:
        return bool(self._client.get(self._key) == self._written)

    def put_back(self) -> None:
        """A fresh one, which goes when the project's own would have."""
        if self._sample is not None:
            self.write(0.0)
            if self._left > 0:
                self._client.expire(self._key, self._left)


class File:
    """A file that is touched."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f"{path.name}.celery-health")
        self._written: int | None = None

    def is_there(self) -> bool:
        return self._path.exists()

    def write(self, age: float | None) -> None:
        if age is None:
            self._path.rename(self._aside)
            self._written = None
            return
        at = time.time() - age
        os.utime(self._path, (at, at))
        self._written = self._path.stat().st_mtime_ns

    def is_ours(self) -> bool:
        try:
            return self._path.stat().st_mtime_ns == self._written
        except FileNotFoundError:
            return self._written is None

    def put_back(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._aside.rename(self._path)
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path)


class Called:
    """What a function of the project tells. Where it is kept is not known, so it is not made older: the clock
    of who looks at it is moved.

    read: gives what the function returns. move: has probes see another time, in seconds since 1970; None is
    the real one.
    """

    def __init__(self, name: str, read: Callable[[], object], move: Callable[[float | None], None]) -> None:
        self._name = name
        self._read = read
        self._move = move
        self._seen: float | None = None

    def is_there(self) -> bool:
        self._seen = self._epoch()
        return self._seen is not None

    def write(self, age: float | None) -> None:
        if age is None or age != age or self._seen is None:
            raise FaultError(f"what {self._name}() tells can be made older only")
        if find_spec("freezegun") is None:
            raise FaultError(
                "the clock of a probe is moved with freezegun: pip install 'pytest-celery-health[clock]'"
            )
        self._move(self._seen + age)

    def is_ours(self) -> bool:
        return self._epoch() == self._seen

    def put_back(self) -> None:
        self._move(None)

    def _epoch(self) -> float | None:
        value = self._read()
        if value is None:
            return None
        seen = moment(value, f"{self._name}()", "returned")
        if isinstance(seen, Unseen):
            raise FaultError(f"{seen.why}, so it cannot be made older")
        if seen.tzinfo is None and not _is_local(seen):
            seen = seen.replace(tzinfo=timezone.utc)
        return seen.timestamp()


@contextmanager
def aside(client: Redis) -> Iterator[None]:
    """Whatever a Redis holds is away."""
    kept = {key: (client.pttl(key), client.dump(key)) for key in client.scan_iter(count=1000)}
    for key in kept:
        client.delete(key)
    try:
        yield
    finally:
        for key, (left, value) in kept.items():
            if value is not None:  # it had not gone by then
                client.restore(key, max(int(left), 0), value, replace=True)


@contextmanager
def held(heartbeat: Heartbeat, age: float | None) -> Iterator[None]:
    """A heartbeat of that age."""
    heartbeat.write(age)
    try:
        yield
    finally:
        heartbeat.put_back()


def like(sample: str, at: float, where: str) -> str:
    """The time `at`, since 1970, in the form of `sample`. Raises FaultError for one of no known form."""
    text = sample.strip().strip("\"'")
    before, _, after = sample.partition(text) if text else ("", "", "")
    if _NUMBER.fullmatch(text):
        scaled = at * 1000 if float(text) > MILLISECONDS_ABOVE else at
        return f"{before}{scaled if '.' in text else int(scaled)}{after}"
    seen = moment(text, where)
    if isinstance(seen, Unseen):
        raise FaultError(f"{seen.why}, so it cannot be made older")
    moved = datetime.fromtimestamp(at, timezone.utc)
    if seen.tzinfo is None:
        moved = (moved.astimezone() if _is_local(seen) else moved).replace(tzinfo=None)
    else:
        moved = moved.astimezone(seen.tzinfo)
    if "." not in text:
        moved = moved.replace(microsecond=0)
    said = moved.isoformat(sep="T" if "T" in text else " ")
    if text[-1] in "zZ":
        said = said.removesuffix("+00:00") + text[-1]
    return f"{before}{said}{after}"


def _is_local(seen: datetime) -> bool:
    """Whether a time without zone, written just now, is of local time and not of UTC."""
    now = datetime.now(timezone.utc)
    return abs(seen - now.replace(tzinfo=None)) > abs(seen - now.astimezone().replace(tzinfo=None))
