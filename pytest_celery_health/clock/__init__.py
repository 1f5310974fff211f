"""What the fixture `celery_clock` gives a test: a time that the code under test sees, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta, timezone
from importlib.util import find_spec
from typing import TypeAlias

from pytest_celery_health.durations import Duration, seconds
from pytest_celery_health.facts import Unseen
from pytest_celery_health.observe.beat import times
from pytest_celery_health.observe.clock import epoch

try:
    from freezegun import api

    from pytest_celery_health.clock.freeze import Freeze
except ModuleNotFoundError as error:
    if error.name != "freezegun":
        raise
    raise ModuleNotFoundError(
        "celery_clock needs freezegun: pip install 'pytest-celery-health[clock]'", name="freezegun"
    ) from None

#: ISO 8601, a datetime, a date (its midnight) or seconds since 1970. Without a zone it is UTC.
Moment: TypeAlias = "str | date | datetime | float"


class CeleryClock:
    """Freezes the wall clock for the code under test, until the test's end or that of a `with`."""

    def __init__(self) -> None:
        self._freezes: list[Frozen] = []

    def __enter__(self) -> CeleryClock:
        return self

    def __exit__(self, *_: object) -> None:
        while self._freezes:
            self._freezes[-1].unfreeze()

    def freeze(self, moment: Moment | None = None, *, also: Iterable[str] = ()) -> Frozen:
        """Freeze time at `moment`, by default at this one, until the end of the test or of the `with`.

        also: modules and packages that see frozen time too, as if they were the project's own: "celery" has
        Celery count `countdown` and `expires` from it. Raises ValueError for what is no moment, or no module.
        """
        names = (also,) if isinstance(also, str) else tuple(also)
        for name in names:
            if find_spec(name.partition(".")[0]) is None:
                raise ValueError(f"also names {name!r}, of which there is no module or package")
        frozen = Frozen(self, Freeze(_naive(moment), names))
        self._freezes.append(frozen)
        return frozen

    def move_to(self, moment: Moment) -> None:
        """Go to `moment`; time that is not frozen yet is frozen there.

        Raises ValueError for what is no moment, RuntimeError where a freeze_time of freezegun hides this.
        """
        to = _naive(moment)
        freeze = self._innermost()
        if freeze is None:
            self.freeze(moment)
        else:
            freeze.move(to)

    def shift(self, by: Duration) -> None:
        """Go on by seconds, "121s", "1d 10s" or a timedelta, or back if it is negative.

        Raises ValueError for what is no duration, RuntimeError when time is not frozen, or as `move_to` does.
        """
        distance = _distance(by)
        freeze = self._innermost()
        if freeze is None:
            raise RuntimeError("time is not frozen: begin with celery_clock.freeze(...)")
        try:
            moment = freeze.moment + distance
        except OverflowError:
            raise ValueError(f"{by!r} leads out of the years that Python knows, 1 to 9999") from None
        freeze.move(moment)

    @property
    def now(self) -> datetime:
        """The frozen moment, or this one where time is not frozen: aware, in UTC."""
        freeze = self._innermost()
        return _now() if freeze is None else freeze.moment.replace(tzinfo=timezone.utc)

    def _innermost(self) -> Freeze | None:
        return next((each.freeze for each in reversed(self._freezes) if not each.freeze.has_ended), None)


class Frozen:
    """Time that is frozen; leaving it as a context manager lets it go on."""

    def __init__(self, clock: CeleryClock, freeze: Freeze) -> None:
        self._clock = clock
        self.freeze = freeze
        freeze.begin()

    def __enter__(self) -> CeleryClock:
        return self._clock

    def __exit__(self, *_: object) -> None:
        self.unfreeze()

    def unfreeze(self) -> None:
        """Let time go on, or show the freeze around this one. Doing it twice does no harm."""
        if self in self._clock._freezes:
            self._clock._freezes.remove(self)
            self.freeze.end()


def _now() -> datetime:
    return api.real_datetime.fromtimestamp(epoch(), timezone.utc)


def _naive(moment: Moment | None) -> datetime:
    """In UTC, of Python's own class, without a zone."""
    found = _now() if moment is None else _read(moment)
    # Field by field: freezegun's datetime begets its own.
    plain = api.real_datetime(
        *(found.year, found.month, found.day, found.hour, found.minute, found.second, found.microsecond),
        tzinfo=found.tzinfo,
        fold=found.fold,
    )
    try:
        return plain if plain.tzinfo is None else plain.astimezone(timezone.utc).replace(tzinfo=None)
    except OverflowError:
        raise ValueError(f"{moment!r} leads out of the years that Python knows, 1 to 9999") from None


def _read(moment: Moment) -> datetime:
    if isinstance(moment, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", moment.strip()):
        moment = f"{moment.strip()}T00:00:00"
    if isinstance(moment, api.real_date) and not isinstance(moment, api.real_datetime):
        return api.real_datetime(moment.year, moment.month, moment.day)
    found = times.moment(moment, "celery_clock", "was given")
    if isinstance(found, Unseen):
        raise ValueError(f"{found.why}; write '2026-01-15T12:00:00Z', a datetime or seconds since 1970")
    return found


def _distance(by: Duration) -> timedelta:
    back = isinstance(by, str) and by.strip().startswith("-")
    if isinstance(by, str) and back:
        by = by.strip().removeprefix("-")
    elif isinstance(by, timedelta):
        return by
    elif isinstance(by, (int, float)) and not isinstance(by, bool) and by < 0:
        by, back = -by, True
    try:
        distance = timedelta(seconds=seconds(by))
    except OverflowError:
        raise ValueError(f"{by!r} leads out of the years that Python knows, 1 to 9999") from None
    return -distance if back else distance
