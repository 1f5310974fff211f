"""Whether beat is alive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from datetime import timezone

from pytest_celery_health.checks.base import Check
from pytest_celery_health.checks.words import is_name
from pytest_celery_health.durations import Duration, seconds, spell, spell_age
from pytest_celery_health.facts import Ask, AskBeat, Snapshot, Unseen
from pytest_celery_health.verdict import Finding


@dataclass(frozen=True)
class BeatFresh(Check):
    """Beat was seen lately.

    heartbeat: where: "redis:KEY" (ISO 8601 or epoch), "file:PATH" (its mtime), "redbeat", "ping" (beat's
        own, Celery 5.7), "call:package.module:function". Unless given: the contract's, else "ping".
    url: the Redis of "redis:" and "redbeat" when it is not the broker: a URL or "env:NAME".
    within: how old it may be.
    ahead_at_most: how far in the future, for clocks that differ a little.
    naive_is: "UTC" if a time without zone is UTC. Unless it is said, such a time is unknown.

    A heartbeat that a task writes proves that beat sent it and that a worker ran it, at that time.
    """

    _: KW_ONLY
    heartbeat: str = ""
    url: str = ""
    within: Duration = 120.0
    ahead_at_most: Duration = 2.0
    naive_is: str = ""

    def __post_init__(self) -> None:
        self._in_seconds("within", "ahead_at_most")
        if not self.within:
            raise ValueError("within is 0, which no heartbeat can meet")
        if self.naive_is not in ("", "UTC"):
            raise ValueError(f"naive_is is {self.naive_is!r}; write 'UTC', or make the times aware")
        scheme, colon, rest = self.heartbeat.partition(":")
        if self.heartbeat and scheme not in ("redis", "file", "redbeat", "ping", "call"):
            raise ValueError(
                f"heartbeat is {self.heartbeat!r}; write redis:KEY, file:PATH, redbeat, ping or"
                " call:package.module:function"
            )
        if scheme in ("redis", "file", "call") and not rest:
            raise ValueError(f"heartbeat is {self.heartbeat!r}; what follows the colon is missing")
        if scheme == "call" and not is_name(rest):
            raise ValueError(f"heartbeat is {self.heartbeat!r}; write call:package.module:function")
        _refuse_url(self.url)
        if self.url and scheme in ("file", "ping", "call"):
            raise ValueError(
                f"url is given beside a heartbeat by {scheme}, which reads no Redis; leave it out"
            )
        if scheme in ("redbeat", "ping") and colon:
            raise ValueError(f"heartbeat is {self.heartbeat!r}; write {scheme}, which nothing follows")

    def asks(self) -> Iterable[Ask]:
        yield AskBeat(self.heartbeat, self.url)

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        beat = seen.beat(self.heartbeat, self.url)
        if isinstance(beat, Unseen):
            yield Finding.unseen("", beat, hint="beat")
            return
        within, ahead = seconds(self.within), seconds(self.ahead_at_most)
        if beat.gone:
            yield Finding(False, "beat", "is not running", f"seen within {spell(within)}", beat.gone)
            return
        if isinstance(beat.last_seen, Unseen):
            yield Finding.unseen("", beat.last_seen)
            return
        last = beat.last_seen
        if last.tzinfo is None:
            if not self.naive_is:
                yield Finding(
                    None,
                    "",
                    f"beat's heartbeat {last.isoformat()} has no time zone",
                    hint='write an aware time, or set naive_is = "UTC"',
                )
                return
            last = last.replace(tzinfo=timezone.utc)
        age = beat.age(last, seen.now)
        if age < -ahead:
            yield Finding(
                False,
                "beat",
                f"was last seen {spell_age(age)}",
                "a time in the past",
                "the clocks of its writer and this machine disagree",
                {"beat.age": age},
            )
            return
        said = spell_age(age)
        if age > within and said == f"{spell(within)} ago":
            said = f"{age:.3f} s ago"
        yield Finding(
            age <= within,
            "beat",
            f"was last seen {said}",
            f"within {spell(within)}",
            beat.note or beat.source,
            {"beat.age": age},
        )


def _refuse_url(url: str) -> None:
    """Raise ValueError unless it may lead to a Redis. It may hold a password, so it is not shown."""
    scheme, colon, rest = url.partition(":")
    if not url or (scheme == "env" and rest.strip()):
        return
    if scheme == "env" and colon:
        raise ValueError('url is "env:"; write "env:NAME", NAME being a variable')
    if not rest.startswith("//") or scheme not in ("redis", "rediss", "unix", "redis+socket"):
        what = f"a URL of {scheme}" if rest.startswith("//") else "no URL"
        raise ValueError(f'url is {what}; write "redis://HOST:6379/0", rediss://, unix:// or "env:NAME"')
