# ruff: noqa: E501 - the lines are as long as those that they quote
"""Third parties' checks may have fields of any type that TOML can write; none is taken loosely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from pytest_celery_health.contract.values import complaints, describe, fit
from pytest_celery_health.durations import Duration


class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Limit:
    queue: str
    below: int = 10


@pytest.mark.parametrize(
    ("value", "wanted", "got"),
    [
        (5, float, 5.0),
        (5, int | float, 5),
        ("x", str | None, "x"),
        (["a"], tuple[str, ...], ("a",)),
        (["a"], frozenset[str], frozenset({"a"})),
        (["a"], Sequence[str], ("a",)),
        (["a", 1], list, ["a", 1]),
        (["a", 1], tuple[str, int], ("a", 1)),
        ([["a"], ["b"]], list[tuple[str, ...]], [("a",), ("b",)]),
        ({"hooks.slack.com": ["raises"]}, Mapping[str, tuple[str, ...]], {"hooks.slack.com": ("raises",)}),
        ({"a": 1}, dict[str, Any], {"a": 1}),
        ("red", Colour, Colour.RED),
        ("warn", Literal["warn", 1], "warn"),
        (1, Literal["warn", 1], 1),
        ({"queue": "a"}, Limit, Limit("a")),
        ([{"queue": "a", "below": 1}], tuple[Limit, ...], (Limit("a", 1),)),
        ("1min", timedelta, timedelta(minutes=1)),
        ("1min", Duration, "1min"),
        ("run/x", Path, Path("run/x")),
        (time(8), time, time(8)),
        (datetime(2026, 1, 1), datetime, datetime(2026, 1, 1)),
    ],
)
def test_fits(value: Any, wanted: Any, got: Any) -> None:
    result = fit(value, wanted)

    assert result == got
    assert type(result) is type(got)


@pytest.mark.parametrize(
    ("value", "wanted", "told"),
    [
        (True, int, ["k is true; wanted a whole number"]),
        (True, float, ["k is true; wanted a number"]),
        (1, bool, ["k is 1, a whole number; wanted true or false"]),
        ("1.5", float, ['k is "1.5", text; wanted a number: write 1.5 without quotes']),
        (float("nan"), float, ["k is nan; wanted a finite number"]),
        ("abc", list[str], ['k is "abc", text; wanted a list of text: write ["abc"]']),
        ("abc", tuple[int, ...], ['k is "abc", text; wanted a list of a whole number']),
        ([["a"], "bc"], list[list[str]], ['k[1] is "bc", text; wanted a list of text: write ["bc"]']),
        (["a"], tuple[str, int], ["k has 1 items; wanted 2"]),
        ([1], tuple[str, ...] | str, ['k[0] is 1, a whole number; wanted text: write "1"']),
        (1, tuple[str, ...] | str, ['k is 1, a whole number; wanted a list of text or text: write "1"']),
        ({"a": 1, "b": "x"}, Mapping[str, str], ['k.a is 1, a whole number; wanted text: write "1"']),
        (["a"], Mapping[str, str], ["k is a list; wanted a table of text"]),
        ("rde", Colour, ['k is "rde"; wanted "red" or "blue"; did you mean "red"?']),
        (True, Literal["warn", 1], ['k is true; wanted "warn" or 1']),
        ("x", Limit, ['k is "x", text; wanted a table']),
        (
            {"below": "1", "bleow": 2},
            Limit,
            ["k.queue is missing", 'k.below is "1", text; wanted a whole number: write 1 without quotes', "k.bleow is not a key of it; did you mean below?"],
        ),
        ("soon", timedelta, ["k is no duration: 'soon' is not a duration; write seconds or '90s', '2min', '1h30min'"]),
        (datetime(2026, 1, 1), date, ["k is 2026-01-01 00:00:00, a date and time; wanted a date: write 2026-01-01 without a time"]),
        (1, Path, ["k is 1, a whole number; wanted text"]),
        (1, complex, [f"k is of a type that TOML cannot write: {complex!r}"]),
    ],
)  # fmt: skip
def test_does_not_fit(value: Any, wanted: Any, told: list[str]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - cattrs has many, and `complaints` reads them all
        fit(value, wanted)

    assert sorted(complaints(caught.value, "k")) == sorted(told)


def test_what_is_not_to_be_shown_is_not() -> None:
    for value, wanted in [("hunter2", int), (["hunter2", 1], list[int]), ("hunter2", Literal["a"])]:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            fit(value, wanted, show=False)
        assert "hunter2" not in " ".join(complaints(caught.value, "k"))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Duration | None, 'seconds or "90s"'),
        (tuple[str, ...] | str, "a list of text or text"),
        (Mapping[str, tuple[str, ...]], "a table of a list of text"),
        (Literal["fail", "warn"], '"fail" or "warn"'),
        (bool | None, "true or false"),
        (list, "a list"),
        (Any, "anything"),
    ],
)
def test_types_in_words(wanted: Any, words: str) -> None:
    assert describe(wanted) == words
