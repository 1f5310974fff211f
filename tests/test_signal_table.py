"""The table of signals is what the installed Celery's own source sends."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import celery
import pytest
from celery import signals
from celery.utils.dispatch import Signal

from pytest_celery_health.signal_table import SIGNALS

#: Where celery's source calls `send` by another name.
_ALIASES = {
    "send_before_publish": "before_task_publish",
    "send_after_publish": "after_task_publish",
    "send_task_sent": "task_sent",
    "send_prerun": "task_prerun",
    "send_postrun": "task_postrun",
    "send_success": "task_success",
    "send_retry": "task_retry",
    "send_revoked": "task_revoked",
    "_send_sent_signal": "heartbeat_sent",
    "_quick_apply_sig": "eventlet_pool_apply",
}


def _sends() -> Iterator[tuple[str, set[str]]]:
    for file in Path(celery.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "send" and isinstance(node.func, ast.Attribute):
                name = getattr(node.func.value, "attr", getattr(node.func.value, "id", ""))
            name = _ALIASES.get(name, name)
            if name in SIGNALS:
                yield name, {keyword.arg for keyword in node.keywords if keyword.arg} - {"sender"}


def test_every_signal_of_celery_is_in_the_table() -> None:
    assert set(SIGNALS) == {name for name, found in vars(signals).items() if isinstance(found, Signal)}


def test_the_table_has_the_parameters_that_celery_sends() -> None:
    sent: dict[str, set[str]] = {}
    for name, parameters in _sends():
        sent.setdefault(name, set()).update(parameters)
    assert sent == {name: set(signal.by(celery.__version__)) for name, signal in SIGNALS.items()}


def test_the_table_has_what_celery_sometimes_leaves_out() -> None:
    lacks: dict[str, set[str]] = {}
    for name, parameters in _sends():
        lacks.setdefault(name, set()).update(set(SIGNALS[name].by(celery.__version__)) - parameters)
    told = {name: set(signal.may_lack) for name, signal in SIGNALS.items()}
    # These are also sent by who hands on what he got.
    others = {"setup_logging", "task_failure", "task_received"}
    assert {name: lacks[name] for name in SIGNALS.keys() & lacks.keys() - others if lacks[name]} == {
        name: found for name, found in told.items() if found
    }


@pytest.mark.parametrize(
    ("version", "known"), [("5.4.0", False), ("5.10.1", True), ("5.8.0rc1", True), ("", True)]
)
def test_a_parameter_of_newer_celeries(version: str, known: bool) -> None:
    """task_success has told its runtime since Celery 5.7."""
    assert ("runtime" in SIGNALS["task_success"].by(version)) == known
