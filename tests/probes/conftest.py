"""A project with health checks, good ones and bad ones; all of them are called in one world, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_celery_health import Probed, ProbeTells, Snapshot, Unseen, Verdict, judge
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox.probes.prober import Prober
from pytest_celery_health.sandbox.spec import SandboxSpec
from pytest_celery_health.sandbox.world import World

REPO = Path(__file__).parents[2]
PROJECTS = REPO / "tests" / "projects"


class Lab:
    """Judges checks of a project, all in one world."""

    def __init__(self, app: str, root: Path, **spec: Any) -> None:
        self.world = World(SandboxSpec(**spec), AppSpec(app, root))
        self._prober: Prober | None = None

    def verdicts(self, checks: Mapping[str, ProbeTells]) -> dict[str, Verdict]:
        """Of each, by its name here."""
        if self._prober is not None:
            self._prober.release()
        prober = self._prober = Prober(self.world)
        waits = {name: prober.add(ask) for name, check in checks.items() for ask in check.asks()}
        prober.start()
        return {name: judge(check, _seen(waits[name]())) for name, check in checks.items()}

    def close(self) -> None:
        if self._prober is not None:
            self._prober.close()


def _seen(found: Probed | Unseen) -> Snapshot:
    return Snapshot(unseen={Probed: found}) if isinstance(found, Unseen) else Snapshot(found)


@pytest.fixture(scope="session")
def lab() -> Iterator[Callable[..., Lab]]:
    """Labs of projects. They are closed at the end."""
    labs: list[Lab] = []

    def make(app: str, root: Path, **spec: Any) -> Lab:
        labs.append(Lab(app, root, **spec))
        return labs[-1]

    yield make
    for each in labs:
        each.close()


def bad(verdict: Verdict) -> list[str]:
    """What is wrong, a line each."""
    return [replace(finding, hint="").line() for finding in (*verdict.bad, *verdict.blind)]
