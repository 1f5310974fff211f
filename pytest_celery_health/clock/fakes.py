"""What stands for Python's own clocks while time is frozen. Values are plain: no fake leaves in a message.

The originals are asked of `freezegun.api`: a name of ours would be replaced by freezegun's own freeze.
"""

from __future__ import annotations

import itertools
import sys
import time as _time
import uuid as _uuid
import warnings
from collections.abc import Callable
from datetime import timedelta, timezone, tzinfo
from typing import Any

from freezegun import api

_EPOCH = api.real_datetime(1970, 1, 1)
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)
#: From the beginning of the Gregorian calendar, which UUIDs count from, in 100 ns.
_GREGORIAN = 0x01B21DD213814000
_serial = itertools.count()

real_ctime = _time.ctime
real_asctime = _time.asctime
real_uuid1 = _uuid.uuid1
real_clock_gettime = _time.clock_gettime
real_clock_gettime_ns = _time.clock_gettime_ns

#: Given the frame that asks: the moment it shall see, naive and in UTC, and whether it is freezegun's own;
#: None for real time.
Ask = Callable[[Any], "tuple[api.real_datetime, bool] | None"]
_ask: Ask = lambda _: None  # noqa: E731


def answer_with(ask: Ask) -> None:
    """Have `ask` decide who sees what."""
    global _ask
    _ask = ask


def _asked() -> tuple[api.real_datetime, bool] | None:
    return _ask(sys._getframe(2))


def _seconds(moment: api.real_datetime) -> int:
    return (moment - _EPOCH) // _SECOND


def _nanoseconds(moment: api.real_datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND * 1000


def time() -> float:
    asked = _asked()
    return api.real_time() if asked is None else (asked[0] - _EPOCH) / _SECOND


def time_ns() -> int:
    asked = _asked()
    return api.real_time_ns() if asked is None else _nanoseconds(asked[0])


def clock_gettime(clock: int, /) -> float:
    asked = _asked() if clock == _time.CLOCK_REALTIME else None
    return real_clock_gettime(clock) if asked is None else (asked[0] - _EPOCH) / _SECOND


def clock_gettime_ns(clock: int, /) -> int:
    asked = _asked() if clock == _time.CLOCK_REALTIME else None
    return real_clock_gettime_ns(clock) if asked is None else _nanoseconds(asked[0])


def _struct(seconds: float | None, asked: tuple[api.real_datetime, bool] | None) -> _time.struct_time:
    if seconds is not None or asked is None:
        return api.real_localtime(seconds)
    moment, by_freezegun = asked
    # freezegun's local time is one of its own: UTC and its tz_offset, or time.timezone without DST.
    return api.fake_localtime() if by_freezegun else api.real_localtime(_seconds(moment))


def localtime(seconds: float | None = None, /) -> _time.struct_time:
    return _struct(seconds, _asked())


def gmtime(seconds: float | None = None, /) -> _time.struct_time:
    asked = _asked()
    if seconds is not None or asked is None:
        return api.real_gmtime(seconds)
    return api.real_gmtime(_seconds(asked[0]))


def strftime(format: str, moment: Any = None, /) -> str:  # noqa: A002
    return api.real_strftime(format, _struct(None, _asked()) if moment is None else moment)


def ctime(seconds: float | None = None, /) -> str:
    return real_asctime(_struct(seconds, _asked()))


def asctime(moment: Any = None, /) -> str:
    return real_asctime(_struct(None, _asked()) if moment is None else moment)


def uuid1(node: int | None = None, clock_seq: int | None = None) -> _uuid.UUID:
    asked = _asked()
    made = real_uuid1(node, clock_seq)
    if asked is None:
        return made
    # Two of one moment differ by the last digits, within a millisecond.
    stamp = _nanoseconds(asked[0]) // 100 + _GREGORIAN + next(_serial) % 10_000
    low, mid, high = stamp & 0xFFFFFFFF, (stamp >> 32) & 0xFFFF, (stamp >> 48) & 0x0FFF
    variant = made.clock_seq_hi_variant
    return _uuid.UUID(fields=(low, mid, high, variant, made.clock_seq_low, made.node), version=1)


class _Facade(type):
    """A class that passes for the real one, and makes instances of the real one."""

    def __instancecheck__(cls, instance: object) -> bool:
        real = _REALS.get(cls)
        return type.__instancecheck__(cls, instance) if real is None else isinstance(instance, real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        real = _REALS.get(cls)
        return type.__subclasscheck__(cls, subclass) if real is None else issubclass(subclass, real)


class _Datetime(api.real_datetime, metaclass=_Facade):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return api.real_datetime.__new__(_REALS.get(cls, cls), *args, **kwargs)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return cls._at(tz, _asked())

    @classmethod
    def today(cls) -> Any:
        return cls._at(None, _asked())

    @classmethod
    def utcnow(cls) -> Any:
        if sys.version_info >= (3, 12):
            warnings.warn(
                "datetime.datetime.utcnow() is deprecated and scheduled for removal in a future version."
                " Use timezone-aware objects to represent datetimes in UTC:"
                " datetime.datetime.now(datetime.UTC).",
                DeprecationWarning,
                stacklevel=2,
            )
        return cls._at(timezone.utc, _asked()).replace(tzinfo=None)

    @classmethod
    def _at(cls, tz: tzinfo | None, asked: tuple[api.real_datetime, bool] | None) -> Any:
        if asked is None:
            return cls._own().now(tz)
        moment, by_freezegun = asked
        if by_freezegun:
            return api.FakeDatetime.now(tz)
        # Of whole seconds, no microsecond is lost to rounding.
        return cls._own().fromtimestamp(_seconds(moment), tz).replace(microsecond=moment.microsecond)

    @classmethod
    def fromtimestamp(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._own().fromtimestamp(*args, **kwargs)

    @classmethod
    def _own(cls) -> Any:
        # Before Python 3.12 a class made of datetime loses the fold.
        return _REALS.get(cls) or super()


class _Date(api.real_date, metaclass=_Facade):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return api.real_date.__new__(_REALS.get(cls, cls), *args, **kwargs)

    @classmethod
    def today(cls) -> Any:
        asked = _asked()
        if asked is None:
            return super().today()
        moment, by_freezegun = asked
        return api.FakeDate.today() if by_freezegun else super().fromtimestamp(_seconds(moment))


_REALS: dict[type, Any] = {_Datetime: api.real_datetime, _Date: api.real_date}
for _facade, _name in ((_Datetime, "datetime"), (_Date, "date")):
    # As pickle and help() look for it.
    _facade.__name__ = _facade.__qualname__ = _name
    _facade.__module__ = "datetime"


def reduce_datetime(value: api.real_datetime) -> tuple[Any, ...]:
    """As pickle would, which finds the facade where it looks for the class."""
    return _Datetime, value.__reduce_ex__(4)[1]


def reduce_date(value: api.real_date) -> tuple[Any, ...]:
    """As pickle would, which finds the facade where it looks for the class."""
    return _Date, value.__reduce_ex__(4)[1]


#: What stands for what: Python's own, and what freezegun put in its place.
STANDS_FOR: tuple[tuple[Any, Any, Any], ...] = (
    (time, api.real_time, api.fake_time),
    (time_ns, api.real_time_ns, api.fake_time_ns),
    (clock_gettime, real_clock_gettime, None),
    (clock_gettime_ns, real_clock_gettime_ns, None),
    (localtime, api.real_localtime, api.fake_localtime),
    (gmtime, api.real_gmtime, api.fake_gmtime),
    (strftime, api.real_strftime, api.fake_strftime),
    (ctime, real_ctime, None),
    (asctime, real_asctime, None),
    (uuid1, real_uuid1, None),
    (_Datetime, api.real_datetime, api.FakeDatetime),
    (_Date, api.real_date, api.FakeDate),
)
#: Clocks that freezegun stops, and that must go on.
GO_ON: tuple[tuple[Any, Any], ...] = (
    (api.real_monotonic, api.fake_monotonic),
    (api.real_monotonic_ns, api.fake_monotonic_ns),
    (api.real_perf_counter, api.fake_perf_counter),
    (api.real_perf_counter_ns, api.fake_perf_counter_ns),
)
