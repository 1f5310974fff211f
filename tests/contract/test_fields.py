"""Whatever a check can be told in Python, a contract can tell it in the same words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, get_args

import pytest

from pytest_celery_health.checks import CHECKS, Check
from pytest_celery_health.contract.model import Contract, ContractError
from pytest_celery_health.contract.third_party import field_types

From = Callable[..., Contract]

#: What a field's type takes; a field with a grammar of its own takes WORDS instead of any text, or LISTS.
BY_TYPE: dict[Any, list[Any]] = {
    int: [1, 1000],
    float: [5, 1.5],
    bool: [True, False],
    str: ["plain", 'quoted "text" and \\ signs', "ümläut"],
    tuple[str, ...]: [["a"], ["a", 'b "c"']],
}
WORDS = {
    "level": ["INFO"],
    "call": ["shop.orders:place_order"],
    "heartbeat": ["redis:KEY", "file:/run/beat", "redbeat", "ping", "call:shop.health:seen"],
    "naive_is": ["UTC"],
    "tasks": ["all"],
    "then": ["shop.outbox:relay"],
    "version": ["5", "5.6", "5.6.0rc1"],
    "wsgi": ["shop.web:application", "shop.web:create()"],
    "asgi": ["shop.web:application"],
    "path": ["/healthz"],
    "worlds": ["readiness"],
    "pool": ["prefork", "threads"],
    "scrape": ["worker", "http://localhost:9808/metrics", "call:shop.web:metrics", "push:gateway:9091"],
    "url": ["env:HEARTBEATS", "redis://other:6379/1"],
}
LISTS: dict[Any, list[Any]] = {
    "allow": [["shop.signals:alert"]],
    ("logs", "allow"): [["celery.redirected", "rotation:tasks"]],
    "ends": [["raises"], []],
    "priorities": [[0], [0, 3, 6, 9]],
    "handlers": [["shop.signals:alert"], ["shop.signals:alert", "shop.signals:page"]],
    "when": [["broker_hangs"], ["broker_refuses", "broker_blocks"]],
    "unhealthy_when": [["broker_hangs", "no_workers"]],
    "stays_healthy_when": [["warm_shutdown"]],
    "expected": [["task_failure:shop.signals:alert", "task_unknown:shop.signals:alert"]],
}
TABLES: dict[Any, list[Any]] = {
    "call_with": [{"threshold_seconds": 300, "strict": True}],
    "headers": [{"Host": "shop.test"}],
    "counts": [{"tasks_failed_total": ["raises", "worker_lost"], "tasks_total": ["success"]}],
    "must_reach": [{"hooks.slack.com": ["raises", "worker_lost"], "log:shop": ["expired"]}],
}
#: What a row cannot do without, by check, or by check and field.
NEEDED: dict[Any, dict[str, Any]] = {
    "alerts": {"must_reach": {"log": ["raises"]}},
    "metrics": {"scrape": "worker", "gauge": "celery_queue_length"},
    "probe": {"call": "shop.health:check"},
    ("probe", "wsgi"): {"path": "/healthz"},
    ("probe", "asgi"): {"path": "/healthz"},
    ("probe", "path"): {"wsgi": "shop.web:application"},
    ("probe", "headers"): {"wsgi": "shop.web:application", "path": "/healthz"},
    ("probe", "command"): {},
    "publisher": {"call": "shop.orders:place_order"},
    ("beat", "url"): {"heartbeat": "redbeat"},
}
DURATIONS = [90, 0.5, "90s", "1h30min"]


def values(use: str, cls: type[Check], name: str) -> Iterator[Any]:
    """TOML values for a field, some for every type that its annotation allows."""
    for known in (LISTS, TABLES):
        if name in known:
            yield from known.get((use, name), known[name])
            return
    hint = field_types(cls)[name]
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    if "timedelta" in {getattr(kind, "__name__", "") for kind in kinds}:
        yield from DURATIONS
        return
    for kind in [hint] if hint in BY_TYPE else kinds:
        yield from WORDS[name] if kind is str and name in WORDS else BY_TYPE[kind]


CASES = [
    pytest.param(use, field.name, value, id=f"{use}-{field.name}-{value}")
    for use, cls in CHECKS.items()
    for field in fields(cls)
    for value in values(use, cls, field.name)
]


@pytest.mark.parametrize(("use", "name", "value"), CASES)
def test_a_field_says_in_toml_what_it_says_in_python(contract: From, use: str, name: str, value: Any) -> None:
    cls = CHECKS[use]
    given = {**needed(use, name), name: value}
    subject = {} if cls.subject in ("", name) else {cls.subject: "r"}
    lines = "\n".join(f"{key} = {toml(one)}" for key, one in given.items())

    (row,) = contract(
        f'[tool.celery-health]\napp = "shop"\n[tool.celery-health.check.r]\nuse = "{use}"\n{lines}'
    ).rows

    assert row.check == cls(**subject, **{key: frozen(one) for key, one in given.items()})


def needed(use: str, name: str) -> dict[str, Any]:
    return NEEDED.get((use, name), NEEDED.get(use, {}))


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: frozen(one) for key, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("use", "name"),
    [
        pytest.param(use, field.name, id=f"{use}-{field.name}")
        for use in CHECKS
        for field in fields(CHECKS[use])
        if field.name not in TABLES
    ],
)
def test_no_other_field_takes_a_table(contract: From, use: str, name: str) -> None:
    others = {key: one for key, one in NEEDED.get(use, {}).items() if key != name}
    needed = "".join(f", {key} = {toml(one)}" for key, one in others.items())
    needed = "".join(f", {key} = {toml(one)}" for key, one in NEEDED.get(use, {}).items() if key != name)
    with pytest.raises(ContractError) as caught:
        contract(
            f'[tool.celery-health]\napp = "s"\ncheck.r = {{ use = "{use}", {name} = {{ x = 1 }}{needed} }}'
        )

    (told,) = caught.value.problems
    assert told.startswith(f"pyproject.toml:3: [tool.celery-health.check.r] {name} is a table; wanted ")


@pytest.mark.parametrize("use", CHECKS)
def test_every_field_is_documented(use: str) -> None:
    cls = CHECKS[use]
    told = (cls.__doc__ or "").splitlines()

    assert told[0].endswith("."), "the first line is the check's title"
    for field in fields(cls):
        assert any(line.strip().startswith(f"{field.name}: ") for line in told), field.name
