"""The table of what signals carry, against the code of the Celery that is installed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import celery
import pytest
from celery import signals
from celery.utils.dispatch import Signal

from pytest_celery_health.record import payloads

NAMES = {name for name, value in vars(signals).items() if isinstance(value, Signal)}


def signal_of(node: ast.AST) -> str:
    """The signal whose `send` this is, or ""."""
    if isinstance(node, ast.IfExp):
        return signal_of(node.body)
    if not (isinstance(node, ast.Attribute) and node.attr == "send"):
        return ""
    name = getattr(node.value, "attr", getattr(node.value, "id", ""))
    return name if name in NAMES else ""


def calls() -> Iterator[tuple[str, set[str]]]:
    """Every place in Celery where a signal is sent, and the arguments there."""
    for path in Path(celery.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        bound = {
            getattr(node.targets[0], "attr", getattr(node.targets[0], "id", "")): signal_of(node.value)
            for node in nodes
            if isinstance(node, ast.Assign) and signal_of(node.value)
        }
        for node in nodes:
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                name = signal_of(node.func) or bound.get(called, "")
                if name:
                    yield name, {word.arg for word in node.keywords if word.arg} - {"sender"}


def test_the_table_is_what_celery_sends() -> None:
    sent: dict[str, set[str]] = {}
    for name, arguments in calls():
        sent.setdefault(name, set()).update(arguments)
    assert sent == {name: set(payloads.arguments_of(name)) for name in payloads.SENT}


def test_every_signal_is_in_the_table() -> None:
    assert set(payloads.SENT) == NAMES


def test_what_only_newer_versions_send_is_refused_before() -> None:
    payloads.check("task_success", ["runtime"], (5, 7))
    with pytest.raises(TypeError) as refused:
        payloads.check("task_success", ["runtime"], (5, 4))
    assert str(refused.value) == (
        "Celery never sends 'runtime' with task_success before 5.7 (this is 5.4); it sends result"
    )
