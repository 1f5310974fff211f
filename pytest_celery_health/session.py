"""A health run inside pytest: the contract is read, and what collects, judges and ends is put together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import pytest

from pytest_celery_health.app_hooks import app_hooks
from pytest_celery_health.collecting import Collecting
from pytest_celery_health.contract.find import find
from pytest_celery_health.contract.model import SANDBOX, Contract, ContractError
from pytest_celery_health.contract.read import read
from pytest_celery_health.contract.values import did_you_mean
from pytest_celery_health.durations import seconds
from pytest_celery_health.ending import Ending, close
from pytest_celery_health.judging import Judging
from pytest_celery_health.processes import Controller, Worker, share_of
from pytest_celery_health.report.progress import Reporter
from pytest_celery_health.report.terminal import Tally
from pytest_celery_health.rows import refuse_unknown
from pytest_celery_health.run import Run, Waiting

_RUN = pytest.StashKey[Run]()


def start(config: pytest.Config) -> None:
    """Read the contract and make this a health run.

    Raises pytest.UsageError for a wrong contract, target or option.
    """
    run = _make_run(config)
    refuse_unknown(config.args, config.invocation_params.dir, run)
    config.stash[_RUN] = run
    tally = Tally()
    collecting = Collecting(config, run)
    parts: list[object] = [collecting]
    controller: Controller | None = None
    if run.share is None:
        run.progress = reporter = Reporter(config)
        controller = Controller(config, run, tally, reporter)
        parts.append(controller)
    else:
        parts.append(Worker(config, tally, run.share))
    judging = Judging(config, run, tally, controller)
    ending = Ending(config, run, tally, controller, collecting.foreign)
    for part in (ending, judging, *parts):
        config.pluginmanager.register(part, f"celery_health_{type(part).__name__.lower()}")


def run_of(config: pytest.Config) -> Run:
    """The run of this process; in an ordinary run one on the sandbox, made when first asked for."""
    if _RUN not in config.stash:
        run = _make_run(config)
        if run.lacks_app:
            raise pytest.UsageError(run.lacks_app)
        config.stash[_RUN] = run
        config.add_cleanup(partial(close, run))
    return config.stash[_RUN]


def _make_run(config: pytest.Config) -> Run:
    hooks = app_hooks(config)
    name = config.getoption("celery_health_target") or SANDBOX
    path = tuple(str(config.rootpath / folder) for folder in config.getini("pythonpath"))
    try:
        # A live target may be looked at where its code is not.
        contract = _read_contract(config, bool(hooks), path if name == SANDBOX else None)
    except ContractError as error:
        raise pytest.UsageError(str(error)) from error
    if name != SANDBOX and name not in contract.targets:
        declared = [SANDBOX, *contract.targets]
        raise pytest.UsageError(
            f"--celery-health-target={name}: {contract.path.name} declares no"
            f" [tool.celery-health.target.{name}]{did_you_mean(name, declared)}"
            f" (declared: {', '.join(declared)})"
        )
    return Run(
        contract,
        name,
        Waiting(
            _duration(config, "wait", 0.0),
            _interval(config),
        ),
        hooks,
        path,
        share=share_of(config),
    )


def _duration(config: pytest.Config, name: str, default: float) -> float:
    text = config.getoption(f"celery_health_{name}")
    if text is None:
        return default
    value: float | str = text
    with suppress(ValueError):
        value = float(text)
    try:
        return seconds(value)
    except ValueError as error:
        raise pytest.UsageError(f"--celery-health-{name}: {error}") from error


def _interval(config: pytest.Config) -> float:
    found = _duration(config, "interval", 5.0)
    if not found:
        raise pytest.UsageError(
            "--celery-health-interval is 0, which is no pause; write 1 or more, or leave it out"
        )
    return found


def _read_contract(config: pytest.Config, hooked: bool, app_path: Sequence[str] | None) -> Contract:
    named = config.getoption("celery_health_contract")
    here = config.invocation_params.dir
    if named:
        return read(here / named, app_from_hook=hooked, app_path=app_path)
    paths = [here]
    if config.args_source == pytest.Config.ArgsSource.ARGS:
        paths = [here / arg.split("::")[0] for arg in config.args]
    found = find(paths, here)
    if found is not None:
        return read(found, app_from_hook=hooked, app_path=app_path)
    return Contract(config.rootpath / "pyproject.toml", declared=False)
