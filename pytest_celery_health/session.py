"""A health run inside pytest: the contract is read, and what collects, judges and ends is put together."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from types import ModuleType

import pytest

from pytest_celery_health.collecting import Collecting
from pytest_celery_health.contract.find import find
from pytest_celery_health.contract.model import SANDBOX, Contract, ContractError
from pytest_celery_health.contract.read import read
from pytest_celery_health.contract.values import did_you_mean
from pytest_celery_health.durations import seconds
from pytest_celery_health.ending import Ending, close
from pytest_celery_health.judging import Judging
from pytest_celery_health.processes import Processes, shared_folder
from pytest_celery_health.report.terminal import Tally
from pytest_celery_health.run import Run, Waiting

_RUN = pytest.StashKey[Run]()


def start(config: pytest.Config) -> None:
    """Read the contract and make this a health run.

    Raises pytest.UsageError for a wrong contract, target or option.
    """
    run = _make_run(config)
    config.stash[_RUN] = run
    tally = Tally()
    processes = Processes(config, tally)
    collecting = Collecting(config, run)
    judging = Judging(config, run, tally, processes)
    ending = Ending(config, run, tally, processes, collecting.foreign)
    for part in (ending, judging, collecting, processes):
        config.pluginmanager.register(part, f"celery_health_{type(part).__name__.lower()}")


def run_of(config: pytest.Config) -> Run:
    """The run of this process; in an ordinary run one on the sandbox, made when first asked for."""
    if _RUN not in config.stash:
        config.stash[_RUN] = run = _make_run(config)
        config.add_cleanup(partial(close, run))
    return config.stash[_RUN]


def _make_run(config: pytest.Config) -> Run:
    hook = _app_hook(config)
    try:
        contract = _read_contract(config, app_from_hook=bool(hook))
    except ContractError as error:
        raise pytest.UsageError(str(error)) from error
    name = config.getoption("celery_health_target") or SANDBOX
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
        hook,
        tuple(str(config.rootpath / path) for path in config.getini("pythonpath")),
        share=shared_folder(config),
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


def _read_contract(config: pytest.Config, *, app_from_hook: bool) -> Contract:
    named = config.getoption("celery_health_contract")
    here = config.invocation_params.dir
    if named:
        return read(here / named, app_from_hook=app_from_hook)
    paths = [here]
    if config.args_source == pytest.Config.ArgsSource.ARGS:
        paths = [here / arg.split("::")[0] for arg in config.args]
    found = find(paths, here)
    if found is not None:
        return read(found, app_from_hook=app_from_hook)
    return Contract(config.rootpath / "pyproject.toml", declared=False)


def _app_hook(config: pytest.Config) -> str:
    impls = config.hook.pytest_celery_health_app.get_hookimpls()
    if not impls:
        return ""
    plugin, function = impls[-1].plugin, impls[-1].function
    if isinstance(plugin, ModuleType) and plugin.__file__:
        name = next((name for name, value in vars(plugin).items() if value is function), "")
        if name:
            return f"{plugin.__file__}:{name}"
    where = getattr(function, "__qualname__", repr(function))
    raise pytest.UsageError(
        f"the hook pytest_celery_health_app is {where}, which no child process can import: make it"
        " a function of a module, at the top level of a conftest.py or of a plugin"
    )
