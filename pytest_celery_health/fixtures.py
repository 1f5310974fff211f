"""What the fixture `celery_health` gives a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from pytest_celery_health.checks import Check, ProbeTells
from pytest_celery_health.contract.begin import how_to_begin
from pytest_celery_health.contract.third_party import asked, judged
from pytest_celery_health.facts import Ask, Snapshot, merge
from pytest_celery_health.observe.target import TargetError
from pytest_celery_health.outcome import Outcome, raise_for
from pytest_celery_health.rows import record
from pytest_celery_health.run import Run
from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.drills.crew import Drills
from pytest_celery_health.session import run_of

if TYPE_CHECKING:
    from celery import Celery

    from pytest_celery_health.sandbox.faults.here import CeleryFaults
    from pytest_celery_health.sandbox.fleet.here import CeleryFleet


class CeleryHealth:
    """The run's target, for one test."""

    def __init__(self, run: Run, item: pytest.Item) -> None:
        self._run = run
        self._item = item

    @property
    def target(self) -> str:
        """The target's name: "sandbox", or a declared one."""
        return self._run.target_name

    def look(self, *wanted: Check | Ask) -> Snapshot:
        """Look now at what these checks or asks need, and at no more."""
        asks: list[Ask] = []
        for one in wanted:
            asks += self._run.prepare(one).asks() if isinstance(one, Check) else [one]
        return self._run.look(merge(asks)).snapshot

    def expect(self, *checks: Check) -> Snapshot:
        """Look now, and judge each check.

        Raises Unhealthy (an AssertionError) when a promise is broken, CannotTell when it could not be seen.
        """
        __tracebackhide__ = True
        if not checks:
            raise TypeError("expect() was given no check; write celery_health.expect(WorkersAnswer())")
        prepared = [self._run.prepare(check) for check in checks]
        seen = self._run.look(merge(ask for check in prepared for ask in asked(check))).snapshot
        verdicts = [(check, judged(check, seen)) for check in prepared]
        for check, verdict in verdicts:
            record(self._item, Outcome.of(type(check).__name__, verdict))
        for _, verdict in sorted(verdicts, key=lambda pair: pair[1].unknown):
            raise_for(verdict.message(), verdict, self._run.untold(verdict))
        return seen

    def probe(self, call: Callable[..., object] | str = "", /, **fields: Any) -> Snapshot:
        """Call a health check of the project in a healthy world and in others, as a row `use = "probe"` does.

        call: the function or class, or its "package.module:name"; else `wsgi`, `asgi` or `command` says it.
        fields: those of `ProbeTells`, lists of worlds as lists.

        Raises Unhealthy, an AssertionError, when it does not say what is; CannotTell when a world did not
        come about. Fails on a live target, which is never broken.
        """
        __tracebackhide__ = True
        if self._run.live:
            pytest.fail(
                f"celery_health.probe: it needs worlds that are broken, and {self.target} is only looked at",
                pytrace=False,
            )
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        if call:
            fields["call"] = _path_of(call)
        return self.expect(ProbeTells(**fields))


def _path_of(call: Callable[..., object] | str) -> str:
    """The name by which another process can import it."""
    if isinstance(call, str):
        return call
    module, name = getattr(call, "__module__", None), getattr(call, "__qualname__", None)
    if not module or not name or "<" in name or module == "__main__":
        raise TypeError(
            f"celery_health.probe() calls it in another process, which imports it by its name;"
            f' {name or call!r} has none; where a module holds it, give "package.module:name"'
        )
    return f"{module}:{name}"


def celery_health_for(request: pytest.FixtureRequest) -> Iterator[CeleryHealth]:
    yield CeleryHealth(run_of(request.config), request.node)


def celery_drill_for(request: pytest.FixtureRequest) -> Drills:
    run = run_of(request.config)
    try:
        return run.drills
    except TargetError as error:
        hint = "" if run.has_app else f"\n{how_to_begin()}"
        pytest.fail(f"celery_drill: {error}{hint}", pytrace=False)


def celery_fleet_for(request: pytest.FixtureRequest) -> Iterator[CeleryFleet]:
    from pytest_celery_health.project.child.load import LoadError
    from pytest_celery_health.sandbox.fleet.here import CeleryFleet
    from pytest_celery_health.sandbox.here import provided

    run = run_of(request.config)
    env = run.contract.sandbox.redirect_env
    with ExitStack() as stack:
        try:
            broker = stack.enter_context(run.brokers.empty(getattr(request, "param", "")))
            url = broker.target.url
            with provided(url, env):
                app = own_app(request.config, run)
        except (TargetError, SandboxError, LoadError) as error:
            pytest.fail(f"celery_fleet: {error}", pytrace=False)
        fleet = CeleryFleet(
            app, url, broker.launch.result, options=broker.target.options, env=env, broker=broker.broker
        )
        yield stack.enter_context(fleet)
        request.node.add_report_section("teardown", "celery_fleet", fleet.told())


def celery_faults_for(request: pytest.FixtureRequest) -> Iterator[CeleryFaults]:
    from pytest_celery_health.sandbox.faults.here import CeleryFaults, NeverLeftError

    run = run_of(request.config)
    try:
        if "celery_fleet" in request.fixturenames:
            raise TargetError("celery_fleet points the app at another broker; a test can have one of the two")
        world = run.world
        app = own_app(request.config, run)
        seen = len(world.notes)
        try:
            with CeleryFaults(world, app, run.contract.sandbox.redirect_env) as faults:
                yield faults
        finally:
            if world.notes[seen:]:
                request.node.add_report_section("teardown", "celery_faults", "\n".join(world.notes[seen:]))
    except NeverLeftError as error:
        pytest.fail(str(error), pytrace=False)
    except (TargetError, SandboxError) as error:
        pytest.fail(f"celery_faults: {error}", pytrace=False)


def own_app(config: pytest.Config, run: Run) -> Celery:
    """The app under test in this process: what the contract says, else the current one.

    Raises TargetError when there is none.
    """
    from pytest_celery_health.project import this_process

    name = run.contract.app
    if run.hooks:
        told = config.hook.pytest_celery_health_app(target=run.target_name)
        name = name if told is None else told
    app = this_process.app_of(name)
    if app is None:
        raise TargetError(
            "there is no app: import yours at the top of the test module, or name it in [tool.celery-health]:"
            f"\n{how_to_begin()}"
        )
    return app
