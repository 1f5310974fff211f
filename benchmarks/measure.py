"""Sides of a comparison, measured in turn in one run, and the table that shows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Side:
    """One way to do a thing.

    run: does it once, and raises if what it found is not what is there.
    times: how often in each round; quick sides are repeated more often.
    warm: whether it runs once uncounted, for the imports and pooled connections of this process.
    """

    name: str
    run: Callable[[], object]
    times: int = 1
    warm: bool = True


@dataclass(frozen=True)
class Row:
    """What came of a comparison: medians in seconds, the first side being ours.

    goal: how many times faster ours is to be than the second side; None where no goal is set.
    taken: every time measured, in order.
    """

    title: str
    medians: Mapping[str, float]
    goal: float | None = None
    taken: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as long each other side takes."""
        ours = next(iter(self.medians.values()))
        return {name: value / ours for name, value in list(self.medians.items())[1:]}

    @property
    def reached(self) -> bool | None:
        return None if self.goal is None else next(iter(self.ratios.values())) >= self.goal


def compare(
    title: str,
    sides: Sequence[Side],
    rounds: int,
    goal: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Row:
    """Run all sides in turn, `rounds` times; each round begins with another, so that none has the caches."""
    for side in sides:
        if side.warm:
            side.run()
    taken: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds):
        first = number % len(sides)
        for side in (*sides[first:], *sides[:first]):
            for _ in range(side.times):
                begun = clock()
                side.run()
                taken[side.name].append(clock() - begun)
    return Row(title, {name: median(times) for name, times in taken.items()}, goal, taken)


def table(rows: Sequence[Row], *, goals: bool = True) -> str:
    """The rows as Markdown, ratios first."""
    lines = ["| what | ours is faster | than | ours | theirs | goal |", "|---|---|---|---|---|---|"]
    for row in rows:
        ours = next(iter(row.medians.values()))
        for place, (name, ratio) in enumerate(row.ratios.items()):
            goal = ""
            if goals and row.goal is not None and place == 0:
                goal = f"{row.goal:,.0f}x: {'reached' if row.reached else 'MISSED'}"
            title = row.title if place == 0 else ""
            theirs = _ms(row.medians[name])
            lines.append(f"| {title} | **{_times(ratio)}** | {name} | {_ms(ours)} | {theirs} | {goal} |")
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.1f}x"
