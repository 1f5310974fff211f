# ruff: noqa: E501 - the lines are as long as those that they quote
"""Every kind of mistake in a contract, and the line that says what it is and what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from pytest_celery_health.checks import CHECKS
from pytest_celery_health.contract.model import Contract, ContractError, TargetSpec
from pytest_celery_health.contract.read import read
from pytest_celery_health.contract.third_party import COMMON
from pytest_celery_health.sandbox import SandboxSpec

From = Callable[..., Contract]

APP = '[tool.celery-health]\napp = "shop"\n'
ROW = "[tool.celery-health.check.{}]\n{}\n"


def row(*lines: str, name: str = "r", use: str = "workers") -> str:
    """A contract of one row, whose own lines begin on line 5."""
    return "\n".join([APP, f"[tool.celery-health.check.{name}]", f'use = "{use}"', *lines])


def target(*lines: str, name: str = "stg") -> str:
    """A contract of one target, whose own lines begin on line 5."""
    return "\n".join([APP, f"[tool.celery-health.target.{name}]", *lines])


def mistakes(contract: From, text: str) -> list[str]:
    with pytest.raises(ContractError) as caught:
        contract(text)
    return caught.value.problems


MISTAKES = {
    "unknown key of the contract": (
        '[tool.celery-health]\nap = "shop"',
        "pyproject.toml:2: [tool.celery-health] ap is not a key of [tool.celery-health]; did you mean app?",
    ),
    "unknown key, nothing near": (
        APP + "colour = 1",
        "pyproject.toml:3: [tool.celery-health] colour is not a key of [tool.celery-health];"
        " keys: app, env, deadline, sandbox, target, check",
    ),
    "unknown key of the sandbox": (
        APP + "[tool.celery-health.sandbox]\nworker = 2",
        "pyproject.toml:4: [tool.celery-health.sandbox] worker is not a key of the sandbox; did you mean workers?",
    ),
    "unknown key of a target": (
        target('broker = "env:B"', 'expect_hots = "h"'),
        "pyproject.toml:6: [tool.celery-health.target.stg] expect_hots is not a key of a target;"
        " did you mean expect_host?",
    ),
    "unknown key of a silence": (
        row('silence = { untl = 2026-12-01, why = "INC-812" }'),
        "pyproject.toml:6: [tool.celery-health.check.r] silence.until is missing; write the last day, until = 2026-12-31 say",
        "pyproject.toml:6: [tool.celery-health.check.r] silence.untl is not a key of it; did you mean until?",
    ),
    "option of a transport, misspelt": (
        target(
            'broker = "env:B"',
            'expect_host = "h"',
            "transport_options = { visibilty_timeout = 60, colour = 1 }",
        ),
        "pyproject.toml:7: [tool.celery-health.target.stg] transport_options.visibilty_timeout is not an option of a"
        " transport; did you mean visibility_timeout?",
    ),
    "visibility_timeout as a limit, misspelt": (
        row('oldest_unacked_below = "visibilty_timeout"', use="queue"),
        'pyproject.toml:6: [tool.celery-health.check.r] oldest_unacked_below is "visibilty_timeout";'
        ' did you mean "visibility_timeout"?',
    ),
    "unknown key of a check": (
        row("at_leest = 2"),
        "pyproject.toml:6: [tool.celery-health.check.r] at_leest is not a key of workers; did you mean at_least?",
    ),
    "unknown key of a row": (
        row('sevrity = "warn"'),
        "pyproject.toml:6: [tool.celery-health.check.r] sevrity is not a key of workers; did you mean severity?",
    ),
    "a world that the heartbeat of another row cannot be in": (
        row('heartbeat = "call:shop:last_beat"', name="beat", use="beat")
        + '\n[tool.celery-health.check.r]\nuse = "probe"\ncall = "shop:beat"\nunhealthy_when = ["heartbeat_garbage"]',
        'pyproject.toml:10: [tool.celery-health.check.r] unhealthy_when has "heartbeat_garbage", and the heartbeat is'
        " call:shop:last_beat: only the project knows how it is written, so that is for a test of its own; remove it"
        " from unhealthy_when",
    ),
    "dotted row name": (
        APP + '[tool.celery-health.check.bill.eu]\nuse = "queue"',
        "pyproject.toml:3: [tool.celery-health.check.bill] use is missing;"
        ' if the row is named bill.eu, write [tool.celery-health.check."bill.eu"]',
    ),
    "app is not text": (
        "[tool.celery-health]\napp = 5",
        'pyproject.toml:2: [tool.celery-health] app is 5, a whole number; wanted text: write "5"',
    ),
    "app is a path": (
        '[tool.celery-health]\napp = "shop/celery.py"',
        'pyproject.toml:2: [tool.celery-health] app is "shop/celery.py", a path;'
        ' write a module, "shop.celery:app" say',
    ),
    "app is no app": (
        '[tool.celery-health]\napp = "shop celery"',
        'pyproject.toml:2: [tool.celery-health] app is "shop celery", which is no app;'
        ' write "package.module:app", or a factory, "package.module:create_app()"',
    ),
    "factory without a colon": (
        '[tool.celery-health]\napp = "shop.create_app()"',
        'pyproject.toml:2: [tool.celery-health] app is "shop.create_app()",'
        ' which has no colon before the factory; write "shop:create_app()"',
    ),
    "factory with arguments": (
        "[tool.celery-health]\napp = \"shop:create_app('x')\"",
        "pyproject.toml:2: [tool.celery-health] app is \"shop:create_app('x')\", which is no app;"
        ' write "package.module:app", or a factory, "package.module:create_app()"',
    ),
    "env is not text": (
        APP + "env = { DEBUG = 1 }",
        "pyproject.toml:3: [tool.celery-health] env.DEBUG is a whole number; wanted text: write it in quotes",
    ),
    "deadline is no duration": (
        APP + 'deadline = "5x"',
        "pyproject.toml:3: [tool.celery-health] deadline: '5x' is not a duration;"
        " write seconds or '90s', '2min', '1h30min'",
    ),
    "deadline is zero": (
        APP + "deadline = 0",
        'pyproject.toml:3: [tool.celery-health] deadline is 0, which nothing can keep; write 5 or "5s"',
    ),
    "deadline is a boolean": (
        APP + "deadline = true",
        'pyproject.toml:3: [tool.celery-health] deadline is true; wanted seconds or "90s"',
    ),
    "deadline is not finite": (
        APP + "deadline = inf",
        'pyproject.toml:3: [tool.celery-health] deadline is inf, a number; wanted seconds or "90s"',
    ),
    "check is not a table": (
        APP + '[tool.celery-health.check]\nuse = "workers"',
        'pyproject.toml:4: [tool.celery-health] check.use is "workers", text; wanted a table;'
        " write [tool.celery-health.check.NAME] and below it use = ...",
    ),
    "sandbox is not a table": (
        APP + "sandbox = true",
        "pyproject.toml:3: [tool.celery-health] sandbox is true; wanted a table",
    ),
    "sandbox: text for a number": (
        APP + '[tool.celery-health.sandbox]\nworkers = "2"',
        'pyproject.toml:4: [tool.celery-health.sandbox] workers is "2", text; wanted a whole number:'
        " write 2 without quotes",
    ),
    "sandbox: true for 1": (
        APP + "[tool.celery-health.sandbox]\nworkers = true",
        "pyproject.toml:4: [tool.celery-health.sandbox] workers is true; wanted a whole number",
    ),
    "sandbox: negative": (
        APP + "[tool.celery-health.sandbox]\nworkers = -1",
        "pyproject.toml:4: [tool.celery-health.sandbox] workers is -1; write 0 or more",
    ),
    "sandbox: text for a list": (
        APP + '[tool.celery-health.sandbox]\nbeat = "heartbeat"',
        'pyproject.toml:4: [tool.celery-health.sandbox] beat is "heartbeat", text; wanted a list of text:'
        ' write ["heartbeat"]',
    ),
    "sandbox: unknown broker": (
        APP + '[tool.celery-health.sandbox]\nbroker = "valky"',
        'pyproject.toml:4: [tool.celery-health.sandbox] broker is "valky", which the sandbox does not have;'
        " did you mean valkey?",
    ),
    "sandbox: the beginning of a broker's name": (
        APP + '[tool.celery-health.sandbox]\nbroker = "redis"',
        'pyproject.toml:4: [tool.celery-health.sandbox] broker is "redis", which the sandbox does not have;'
        " did you mean redis-server?",
    ),
    "sandbox: unknown pool": (
        APP + '[tool.celery-health.sandbox]\npool = "preforks"',
        'pyproject.toml:4: [tool.celery-health.sandbox] pool is "preforks", which Celery does not have;'
        " did you mean prefork?",
    ),
    "sandbox: what may be reached is no endpoint": (
        APP + '[tool.celery-health.sandbox]\nallow = ["localhost", "db:pg", "db:5432"]',
        "pyproject.toml:4: [tool.celery-health.sandbox] allow: 'localhost' is not an endpoint; write host:port,"
        " such as 'localhost:5432'",
        "pyproject.toml:4: [tool.celery-health.sandbox] allow: 'db:pg' has no port; write host:port, such as"
        " 'localhost:5432'",
    ),
    "sandbox: a broker that workers cannot reach": (
        APP + '[tool.celery-health.sandbox]\nbroker = "memory"',
        'pyproject.toml:4: [tool.celery-health.sandbox] broker is "memory", which lives in one process, so no'
        " worker or beat could reach it; leave it out, or write workers = 0 and no beat",
    ),
    "target: named sandbox": (
        target('broker = "env:B"', 'expect_host = "h"', name="sandbox"),
        "pyproject.toml:4: [tool.celery-health.target.sandbox]"
        " the sandbox is declared as [tool.celery-health.sandbox]",
    ),
    "target: name breaks ids": (
        target('broker = "env:B"', 'expect_host = "h"', name='"a]b"'),
        'pyproject.toml:4: [tool.celery-health.target."a]b"] its name holds "]", which would break test ids;'
        " rename it",
    ),
    "target: no broker": (
        target('expect_host = "h"'),
        "pyproject.toml:4: [tool.celery-health.target.stg] broker is missing;"
        ' write "env:NAME", "app", or a URL without a password',
    ),
    "target: broker is no URL": (
        target('broker = "redis.internal"', 'expect_host = "h"'),
        'pyproject.toml:5: [tool.celery-health.target.stg] broker is "redis.internal";'
        ' wanted "app", "env:NAME", or a URL such as "redis://host:6379/0"',
    ),
    "target: nearly app": (
        target('broker = "ap"', 'expect_host = "h"'),
        'pyproject.toml:5: [tool.celery-health.target.stg] broker is "ap";'
        ' wanted "app", "env:NAME", or a URL such as "redis://host:6379/0"; did you mean "app"?',
    ),
    "target: env without a name": (
        target('broker = "env:"', 'expect_host = "h"'),
        'pyproject.toml:5: [tool.celery-health.target.stg] broker is "env:"; write "env:NAME", NAME being a variable',
    ),
    "target: unknown transport": (
        target('broker = "redsi://h"', 'expect_host = "h"'),
        'pyproject.toml:5: [tool.celery-health.target.stg] broker is a URL of "redsi", which is no transport;'
        " did you mean redis?",
    ),
    "target: a broker of this process": (
        target('broker = "memory://"', 'expect_host = "memory"'),
        'pyproject.toml:5: [tool.celery-health.target.stg] broker is a URL of "memory", which lives in one'
        " process, so no worker could be seen; write the URL that the workers use, or leave the target out",
    ),
    "target: password": (
        target('broker = "redis://:hunter2@h/0"', 'expect_host = "h"'),
        "pyproject.toml:5: [tool.celery-health.target.stg] broker holds a password;"
        ' keep the URL in a variable and write broker = "env:NAME"',
    ),
    "target: password in options": (
        target(
            'broker = "env:B"',
            'expect_host = "h"',
            'transport_options = { sentinel_kwargs = { password = "x" } }',
        ),
        "pyproject.toml:7: [tool.celery-health.target.stg] transport_options.sentinel_kwargs.password holds a password;"
        ' keep it in a variable and write "env:NAME"',
    ),
    "target: no expect_host": (
        target('broker = "redis://r.stg/0"'),
        "pyproject.toml:4: [tool.celery-health.target.stg] expect_host is missing,"
        ' and without it anybody\'s production could be looked at; write expect_host = "r.stg"',
    ),
    "target: no expect_host for several": (
        target('broker = "redis://a/0;redis://b/0"'),
        "pyproject.toml:4: [tool.celery-health.target.stg] expect_host is missing,"
        ' and without it anybody\'s production could be looked at; write expect_host = ["a", "b"]',
    ),
    "target: empty expect_host": (
        target('broker = "env:B"', "expect_host = []"),
        "pyproject.toml:6: [tool.celery-health.target.stg] expect_host is missing,"
        ' and without it anybody\'s production could be looked at; write expect_host = "the.host.it.must.be"',
    ),
    "target: another host": (
        target('broker = "redis://r.prod/0"', 'expect_host = "r.stg"'),
        "pyproject.toml:6: [tool.celery-health.target.stg] its broker is r.prod; expect_host wants r.stg",
    ),
    "target: one of a failover list": (
        target('broker = "redis://r.stg/0;redis://r.prod/0"', 'expect_host = "r.stg"'),
        "pyproject.toml:6: [tool.celery-health.target.stg] its broker is r.prod; expect_host wants r.stg",
    ),
    "target: expect_host is a URL": (
        target('broker = "env:B"', 'expect_host = "redis://r.stg/0"'),
        "pyproject.toml:6: [tool.celery-health.target.stg] expect_host is a URL; write its host alone",
    ),
    "target: expect_host is a pattern": (
        target('broker = "env:B"', 'expect_host = "*.stg"'),
        'pyproject.toml:6: [tool.celery-health.target.stg] expect_host is "*.stg", which is no host;'
        " write every host out",
    ),
    "target: key without cert": (
        target('broker = "env:B"', 'expect_host = "h"', 'key = "k.pem"'),
        "pyproject.toml:7: [tool.celery-health.target.stg] key is given without cert; write both",
    ),
    "target: deadline": (
        target('broker = "env:B"', 'expect_host = "h"', 'deadline = "soon"'),
        "pyproject.toml:7: [tool.celery-health.target.stg] deadline: 'soon' is not a duration;"
        " write seconds or '90s', '2min', '1h30min'",
    ),
    "row: no use": (
        APP + "[tool.celery-health.check.queues]\nready_below = 5",
        'pyproject.toml:3: [tool.celery-health.check.queues] use is missing; write use = "queue";'
        " checks: alerts, beat, handlers, logs, metrics, probe, publisher, queue, schedule, survive, workers, or package.module:Class",
    ),
    "row: use misspelt": (
        APP + '[tool.celery-health.check.r]\nusee = "queue"',
        "pyproject.toml:3: [tool.celery-health.check.r] use is missing; is usee meant to be it?",
    ),
    "row: use is not text": (
        APP + '[tool.celery-health.check.r]\nuse = ["queue"]',
        "pyproject.toml:4: [tool.celery-health.check.r] use is a list; wanted text",
    ),
    "row: unknown check": (
        row(use="worker"),
        'pyproject.toml:5: [tool.celery-health.check.r] use is "worker", which is no check; did you mean "workers"?',
    ),
    "row: unknown check, nothing near": (
        row(use="payments"),
        'pyproject.toml:5: [tool.celery-health.check.r] use is "payments", which is no check;'
        " checks: alerts, beat, handlers, logs, metrics, probe, publisher, queue, schedule, survive, workers, or package.module:Class",
    ),
    "row: path without a colon": (
        row(use="acme.checks.NoPoison"),
        'pyproject.toml:5: [tool.celery-health.check.r] use is "acme.checks.NoPoison";'
        ' a check of your own is written "acme.checks:NoPoison"',
    ),
    "row: name with a bracket": (
        row(name='"a[b"'),
        'pyproject.toml:4: [tool.celery-health.check."a[b"] its name holds "[", which would break test ids; rename it',
    ),
    "row: name with a double colon": (
        row(name='"a::b"'),
        'pyproject.toml:4: [tool.celery-health.check."a::b"] its name holds "::", which would break test ids;'
        " rename it",
    ),
    "row: empty name": (
        row(name='""'),
        'pyproject.toml:4: [tool.celery-health.check.""] its name is empty or holds an unprintable sign; rename it',
    ),
    "row: a name of two lines": (
        row(name='"a\\nb"'),
        'pyproject.toml:4: [tool.celery-health.check."a\\nb"] its name is empty or holds an unprintable sign; rename it',
    ),
    "row: undeclared target": (
        target('broker = "env:B"', 'expect_host = "h"')
        + '\n[tool.celery-health.check.r]\nuse = "workers"\non = ["stgg"]',
        'pyproject.toml:9: [tool.celery-health.check.r] on: target "stgg" is not declared; did you mean stg?',
    ),
    "row: undeclared target, nothing near": (
        row('on = ["production"]'),
        'pyproject.toml:6: [tool.celery-health.check.r] on: target "production" is not declared; targets: sandbox',
    ),
    "row: on nothing": (
        row("on = []"),
        "pyproject.toml:6: [tool.celery-health.check.r] on names no target, so nothing is judged;"
        " name one, or remove on",
    ),
    "row: severity": (
        row('severity = "warm"'),
        'pyproject.toml:6: [tool.celery-health.check.r] severity is "warm"; wanted "fail" or "warn"; did you mean "warn"?',
    ),
    "row: severity of another type": (
        row("severity = 1"),
        'pyproject.toml:6: [tool.celery-health.check.r] severity is 1, a whole number; wanted "fail" or "warn"',
    ),
    "row: if_unknown": (
        row('if_unknown = "fail"'),
        'pyproject.toml:6: [tool.celery-health.check.r] if_unknown is "fail"; wanted "error" or "warn"',
    ),
    "row: optional": (
        row('optional = "true"'),
        'pyproject.toml:6: [tool.celery-health.check.r] optional is "true", text; wanted true or false:'
        " write true without quotes",
    ),
    "row: owner": (
        row('owner = ["payments"]'),
        "pyproject.toml:6: [tool.celery-health.check.r] owner is a list; wanted text",
    ),
    "silence: over": (
        row('silence = { until = 2026-11-21, why = "INC-812" }'),
        "pyproject.toml:6: [tool.celery-health.check.r] silence ended on 2026-11-21 (INC-812);"
        " remove it, or give it a later day",
    ),
    "silence: no why": (
        row("silence = { until = 2026-12-01 }"),
        "pyproject.toml:6: [tool.celery-health.check.r] silence.why is missing;"
        ' write the reason, why = "INC-812" say',
    ),
    "silence: empty why": (
        row('silence = { until = 2026-12-01, why = " " }'),
        "pyproject.toml:6: [tool.celery-health.check.r] silence.why is empty;"
        ' write the reason, why = "INC-812" say',
    ),
    "silence: no day": (
        row('silence = { why = "INC-812" }'),
        "pyproject.toml:6: [tool.celery-health.check.r] silence.until is missing;"
        " write the last day, until = 2026-12-31 say",
    ),
    "silence: a day in quotes": (
        row('silence = { until = "2026-12-01", why = "INC-812" }'),
        'pyproject.toml:6: [tool.celery-health.check.r] silence.until is "2026-12-01", text; wanted a date:'
        " write 2026-12-31, without quotes",
    ),
    "silence: a time": (
        row('silence = { until = 2026-12-01T10:00:00, why = "INC-812" }'),
        "pyproject.toml:6: [tool.celery-health.check.r] silence.until is 2026-12-01 10:00:00, a date and time;"
        " wanted a date: write 2026-12-01 without a time",
    ),
    "silence: unknown key": (
        row('silence = { until = 2026-12-01, why = "INC-812", ticket = "me" }'),
        "pyproject.toml:6: [tool.celery-health.check.r] silence.ticket is not a key of it; keys: until, why",
    ),
    "silence: not a table": (
        row('silence = "INC-812"'),
        'pyproject.toml:6: [tool.celery-health.check.r] silence is "INC-812", text; wanted a table',
    ),
    "check: text for a number": (
        row('at_least = "2"'),
        'pyproject.toml:6: [tool.celery-health.check.r] at_least is "2", text; wanted a whole number:'
        " write 2 without quotes",
    ),
    "check: a fraction": (
        row("at_least = 1.5"),
        "pyproject.toml:6: [tool.celery-health.check.r] at_least is 1.5, a number; wanted a whole number",
    ),
    "check: text for a list": (
        row('names = "w1@h"'),
        'pyproject.toml:6: [tool.celery-health.check.r] names is "w1@h", text; wanted a list of text: write ["w1@h"]',
    ),
    "check: one item of a list": (
        row('queues = ["a", 1]', use="queue"),
        'pyproject.toml:6: [tool.celery-health.check.r] queues[1] is 1, a whole number; wanted text: write "1"',
    ),
    "check: impossible": (
        row("at_least = 0"),
        "pyproject.toml:6: [tool.celery-health.check.r] at_least is 0, which no fleet can miss; write 1 or more",
    ),
    "check: no duration": (
        row('within = "2 minutes"', use="beat"),
        "pyproject.toml:6: [tool.celery-health.check.r] within: '2 minutes' is not a duration;"
        " write seconds or '90s', '2min', '1h30min'",
    ),
    "check: negative duration": (
        row("within = -5", use="beat"),
        "pyproject.toml:6: [tool.celery-health.check.r] within: -5.0 is not a duration;"
        " it must be zero or more, and finite",
    ),
    "check: a function without its module": (
        row('heartbeat = "call:foo"', use="beat"),
        "pyproject.toml:6: [tool.celery-health.check.r] heartbeat is 'call:foo'; write call:package.module:function",
    ),
    "check: a URL that is no Redis": (
        row('url = "http://:hunter2@x"', use="beat"),
        "pyproject.toml:6: [tool.celery-health.check.r] url holds a password;"
        ' keep the URL in a variable and write url = "env:NAME"',
        "pyproject.toml:6: [tool.celery-health.check.r] url is a URL of http;"
        ' write "redis://HOST:6379/0", rediss://, unix:// or "env:NAME"',
    ),
    "check: a URL that nothing reads": (
        row('heartbeat = "ping"', 'url = "redis://h/0"', use="beat"),
        "pyproject.toml:7: [tool.celery-health.check.r] url is given beside a heartbeat by ping, which reads no Redis;"
        " leave it out",
    ),
    "check: no URL": (
        row('url = "redis.internal"', use="beat"),
        "pyproject.toml:6: [tool.celery-health.check.r] url is no URL;"
        ' write "redis://HOST:6379/0", rediss://, unix:// or "env:NAME"',
    ),
    "check: env without a name": (
        row('url = "env:"', use="beat"),
        'pyproject.toml:6: [tool.celery-health.check.r] url is "env:"; write "env:NAME", NAME being a variable',
    ),
    "check: an empty name": (
        row('names = ["w1@h", " "]'),
        "pyproject.toml:6: [tool.celery-health.check.r] names has an empty name;"
        ' write those of workers, ["w1@host"] say',
    ),
    "check: an empty task": (
        row('tasks = [""]'),
        "pyproject.toml:6: [tool.celery-health.check.r] tasks has an empty name;"
        ' write those of tasks, ["shop.tasks.charge"] say',
    ),
    "check: no version": (
        row('version = "abc"'),
        'pyproject.toml:6: [tool.celery-health.check.r] version is "abc", which no version of Celery is;'
        ' write "5.6", say',
    ),
    "check: no entry": (
        row("entries = []", use="schedule"),
        "pyproject.toml:6: [tool.celery-health.check.r] entries names no entry, so nothing is judged;"
        " write those of the schedule, or leave it out for all",
    ),
    "check: an empty entry": (
        row('entries = [""]', use="schedule"),
        "pyproject.toml:6: [tool.celery-health.check.r] entries has an empty name;"
        " write those of the schedule, or leave it out for all",
    ),
    "check: password": (
        row('url = "redis://:hunter2@h/0"', use="beat"),
        "pyproject.toml:6: [tool.celery-health.check.r] url holds a password;"
        ' keep the URL in a variable and write url = "env:NAME"',
    ),
}


@pytest.mark.parametrize(
    ("text", "lines"), [(text, lines) for text, *lines in MISTAKES.values()], ids=MISTAKES
)
def test_a_mistake_is_told_with_its_remedy(contract: From, text: str, lines: list[str]) -> None:
    assert mistakes(contract, text) == lines


WITHOUT_APP = {
    "rows": (
        '[tool.celery-health.check.w]\nuse = "workers"',
        "and without a live target, rows run in the sandbox",
    ),
    "a sandbox": ("[tool.celery-health.sandbox]", "and the sandbox starts it"),
    "a target of its broker": (
        '[tool.celery-health.target.stg]\nbroker = "app"\nexpect_host = "h"',
        'and target stg has broker = "app"',
    ),
}


@pytest.mark.parametrize(("text", "why"), WITHOUT_APP.values(), ids=WITHOUT_APP)
def test_a_missing_app_is_told_when_no_hook_was_found_or_beside_other_mistakes(
    contract: From, text: str, why: str
) -> None:
    missing = (
        f'pyproject.toml:1: [tool.celery-health] app is missing, {why}; write app = "package.module:app"'
    )

    assert contract(text).without_hook == missing
    assert missing in mistakes(contract, text + "\n[tool.celery-health.check.r]\nuse = 5")


class TestMisspeltModule:
    """It is found without importing anything."""

    OTHER = "pyproject.toml:3: [tool.celery-health] deadlin is not a key of [tool.celery-health]; did you mean deadline?"

    @pytest.fixture(autouse=True)
    def _modules(self, project: Path) -> None:
        (project / "shop").mkdir()
        (project / "shop/__init__.py").write_text("raise RuntimeError('imported')")
        (project / "shop/celery.py").write_text("raise RuntimeError('imported')")
        (project / "open").mkdir()
        (project / "src").mkdir()
        (project / "src/flat.py").write_text("raise RuntimeError('imported')")
        (project / "lib/inner").mkdir(parents=True)
        (project / "lib/inner/__init__.py").write_text("raise RuntimeError('imported')")

    @pytest.mark.parametrize(
        ("app", "told"),
        [
            ("shpo.celery:app", "and there is no module shpo; did you mean shop?"),
            ("shpo", "and there is no module shpo; did you mean shop?"),
            ("shop.celry:app", "and there is no module shop.celry; did you mean shop.celery?"),
            ("flta:create_app()", "and there is no module flta; did you mean flat?"),
            (
                "inner:app",
                'and there is no module inner; it is in lib: install the project, or write pythonpath = ["lib"] in [tool.pytest.ini_options]',
            ),
            ("flat.app:app", "and flat is no package, so there is no module flat.app"),
            ("nowhere.to.be:found", "and there is no module nowhere"),
        ],
    )
    def test_it_is_told_beside_others(self, contract: From, project: Path, app: str, told: str) -> None:
        text = f'[tool.celery-health]\napp = "{app}"\ndeadlin = 5'
        with pytest.raises(ContractError) as caught:
            contract(text, app_path=[str(project / "src")])

        assert caught.value.problems == [
            f'pyproject.toml:2: [tool.celery-health] app is "{app}", {told}',
            self.OTHER,
        ]

    @pytest.mark.parametrize(
        "app",
        [
            "shop",
            "shop:app",
            "shop.app",
            "shop.celery:app",
            "shop.celery.app",
            "flat:create_app()",
            "open.celery:app",
            "json:x",
        ],
    )
    def test_what_is_there_is_not_imported(self, contract: From, project: Path, app: str) -> None:
        text = f'[tool.celery-health]\napp = "{app}"\ndeadlin = 5'
        with pytest.raises(ContractError) as caught:
            contract(text, app_path=[str(project / "src")])

        assert caught.value.problems == [self.OTHER]

    def test_the_path_that_the_contract_sets_counts(self, contract: From) -> None:
        text = '[tool.celery-health]\napp = "inner:app"\nenv = { PYTHONPATH = "lib" }\n'
        assert contract(text, app_path=[]).without_hook == ""

    @pytest.mark.parametrize(
        "code",
        ["__path__.append('parts')", "import sys\nsys.modules['shop.made'] = sys"],
        ids=["path", "modules"],
    )
    def test_a_package_may_make_up_modules(self, contract: From, project: Path, code: str) -> None:
        text = '[tool.celery-health]\napp = "shop.made:app"\n'
        assert "there is no module shop.made" in contract(text, app_path=[]).without_hook
        (project / "shop/__init__.py").write_text(code)
        assert contract(text, app_path=[]).without_hook == ""

    def test_it_is_not_looked_for_where_the_code_may_not_be(self, contract: From) -> None:
        assert mistakes(contract, '[tool.celery-health]\napp = "shpo"\ndeadlin = 5') == [self.OTHER]


def test_all_at_once_in_the_order_of_the_file(contract: From) -> None:
    text = """\
        [tool.celery-health]
        app = "shop"
        deadlin = 5

        [tool.celery-health.sandbox]
        workers = "2"

        [tool.celery-health.target.staging]
        broker = "redis://:hunter2@redis/0"

        [tool.celery-health.check.billing]
        use = "queue"
        queues = ["billing", 5]
        ready_below = 0
        moves_within = "soon"
        on = ["stagin"]

        [tool.celery-health.check.beat]
        use = "beet"
        severity = "warm"
    """

    assert [" ".join(line.split()[:3]) for line in mistakes(contract, text)] == [
        "pyproject.toml:3: [tool.celery-health] deadlin",
        "pyproject.toml:6: [tool.celery-health.sandbox] workers",
        "pyproject.toml:8: [tool.celery-health.target.staging] expect_host",
        "pyproject.toml:9: [tool.celery-health.target.staging] broker",
        "pyproject.toml:13: [tool.celery-health.check.billing] queues[1]",
        "pyproject.toml:14: [tool.celery-health.check.billing] ready_below",
        "pyproject.toml:15: [tool.celery-health.check.billing] moves_within:",
        "pyproject.toml:16: [tool.celery-health.check.billing] on:",
        "pyproject.toml:19: [tool.celery-health.check.beat] use",
        "pyproject.toml:20: [tool.celery-health.check.beat] severity",
    ]


@pytest.mark.parametrize(
    ("use", "lines", "told"),
    [
        (
            "workers",
            ['names = "w1"', 'tasks = "al"', 'up_for = "soon"', "clock_within = -1", "silent_at_most = -1"],
            [
                'names is "w1", text',
                "tasks is 'al'",
                "up_for: 'soon' is not a duration",
                "clock_within: -1.0 is not a duration",
                "silent_at_most is -1",
            ],
        ),
        (
            "queue",
            [
                "queues = []",
                "ready_below = 0",
                "consumers_at_least = -1",
                'moves_within = "0s"',
                'oldest_unacked_below = "visibilty_timeout"',
            ],
            [
                "queues names no queue",
                "ready_below is 0, which no queue can meet",
                "consumers_at_least is -1",
                "moves_within is 0",
                'oldest_unacked_below is "visibilty_timeout"',
            ],
        ),
        (
            "publisher",
            ['call = "place"', "answers_within = 0", 'when = ["broker_hang"]'],
            [
                'call is "place"',
                "answers_within is 0, which no call can meet",
                'when has "broker_hang", which is no fault of a broker',
            ],
        ),
        (
            "alerts",
            ["must_reach = {}", 'ends = ["rasies"]', 'pool = "forks"'],
            ["must_reach is empty", 'ends has "rasies", which is no end of a drill', 'pool is "forks"'],
        ),
    ],
)
def test_one_row_s_mistakes_are_told_at_once(
    contract: From, use: str, lines: list[str], told: list[str]
) -> None:
    """Whether or not a row can do without the key, and though messages hold words that are keys, too."""
    place = "pyproject.toml:{}: [tool.celery-health.check.r] "

    assert [line.partition(";")[0] for line in mistakes(contract, row(*lines, use=use))] == [
        place.format(number) + each for number, each in enumerate(told, start=6)
    ]


def test_what_is_missing_hides_no_other_mistake(contract: From) -> None:
    assert mistakes(contract, row("answers_within = 0", use="publisher")) == [
        "pyproject.toml:4: [tool.celery-health.check.r] call is missing; wanted text",
        "pyproject.toml:6: [tool.celery-health.check.r] answers_within is 0, which no call can meet",
    ]


def test_the_error_counts_them(contract: From) -> None:
    with pytest.raises(ContractError) as caught:
        contract(row("at_least = 0", "pool_size = 0"))

    assert str(caught.value) == (
        "2 mistakes in the contract:\n"
        "  pyproject.toml:6: [tool.celery-health.check.r] at_least is 0, which no fleet can miss; write 1 or more\n"
        "  pyproject.toml:7: [tool.celery-health.check.r] pool_size is 0; write 1 or more"
    )


@pytest.mark.parametrize(
    "text",
    [
        target('broker = "redis://:hunter2@h/0"', 'expect_host = "x"'),
        target('broker = "redis://me:hun/ter2@h/0"'),
        target('broker = "h?password=hunter2"'),
        target('broker = "me:hunter2@h"'),
        target("broker = 5", 'transport_options = { password = "hunter2" }'),
        target('broker = "env:B"', 'expect_host = "redis://:hunter2@h"'),
        row('heartbeat = "redes://:hunter2@h"', use="beat"),
        row('at_least = "redis://:hunter2@h"'),
        row('owner = { password = "hunter2" }'),
        row('severity = "redis://:hunter2@h"'),
        row(use="redis://:hunter2@h"),
        APP + 'env = { A = 1, PASSWORD = "hunter2" }',
        '[tool.celery-health]\napp = "redis://:hunter2@h"',
        '[tool.celery-health]\napp = "redis://:hunter2@h" "',
    ],
)
def test_no_password_is_echoed(contract: From, text: str) -> None:
    told = "\n".join(mistakes(contract, text))

    assert "hunter2" not in told
    assert "ter2" not in told


TABLES = {
    "": ("app", "env", "deadline", "sandbox", "target", "check"),
    "sandbox": [field.name for field in fields(SandboxSpec)],
    "target.stg": [field.name for field in fields(TargetSpec) if field.name != "name"],
    **{
        f"check.{use}": [*(COMMON - {"use"}), *(field.name for field in fields(cls) if field.init)]
        for use, cls in CHECKS.items()
    },
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("misspell", [lambda key: key + key[-1], lambda key: key[:-2] + key[-1]])
def test_each_key_of_each_table_is_meant_by_its_misspelling(
    contract: From, table: str, misspell: Callable[[str], str]
) -> None:
    wrong = {misspell(key): key for key in TABLES[table] if len(key) > 3 or misspell(key) > key}
    kind, _, use = table.partition(".")
    head = f'use = "{use}"\n' if kind == "check" else ""
    text = f"[tool.celery-health{'.' if table else ''}{table}]\n{head}" + "".join(
        f"{key} = 1\n" for key in wrong
    )

    told = mistakes(contract, text)
    assert [
        key
        for word, key in wrong.items()
        if not any(f"{word} is not" in line and f"mean {key}?" in line for line in told)
    ] == []


class TestFile:
    def told(self, path: Path) -> str:
        with pytest.raises(ContractError) as caught:
            read(path)
        return str(caught.value)

    def test_missing(self, project: Path) -> None:
        assert self.told(project / "health.toml") == "health.toml does not exist"

    def test_a_folder(self, project: Path) -> None:
        assert self.told(project) == ". cannot be read: Is a directory"

    def test_elsewhere_is_named_in_full(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (project / "below").mkdir()
        monkeypatch.chdir(project / "below")

        assert self.told(project / "health.toml") == f"{project}/health.toml does not exist"

    def test_not_utf_8(self, project: Path) -> None:
        (project / "health.toml").write_bytes(b"# fine\n# gr\xf6\xdfe\n")

        assert (
            self.told(project / "health.toml") == "health.toml:2: not UTF-8, which TOML has to be: byte 0xf6"
        )

    def test_not_toml(self, project: Path) -> None:
        (project / "health.toml").write_text("[tool.celery-health]\napp = shop\n")

        assert (
            self.told(project / "health.toml")
            == "health.toml is not TOML: Invalid value (at line 2, column 7)"
        )

    def test_a_byte_order_mark(self, project: Path) -> None:
        (project / "health.toml").write_bytes(b"\xef\xbb\xbf[tool.celery-health]\n")

        assert self.told(project / "health.toml").endswith("; save it without a byte order mark")

    def test_no_table(self, project: Path) -> None:
        (project / "health.toml").write_text("[tool.black]\n")

        assert self.told(project / "health.toml").splitlines()[:4] == [
            "health.toml has no [tool.celery-health]; begin with:",
            "",
            "    [tool.celery-health]",
            '    app = "yourproject.celery:app"      # what you give to celery -A',
        ]

    @pytest.mark.parametrize("header", ["tool.celery_health", "tool.celeryhealth", "celery-health"])
    def test_a_table_of_nearly_that_name(self, project: Path, header: str) -> None:
        (project / "health.toml").write_text(f"[{header}]\n")

        assert self.told(project / "health.toml") == f"health.toml has [{header}]; write [tool.celery-health]"

    def test_something_else_of_that_name(self, project: Path) -> None:
        (project / "health.toml").write_text("[[tool.celery-health]]\n")

        assert (
            self.told(project / "health.toml") == "health.toml: tool.celery-health is a list; wanted a table"
        )


THIRD_PARTY = """
import abc, sys
from dataclasses import dataclass
from typing import Callable, ClassVar
from pytest_celery_health import Check

class Base(Check):
    def asks(self): return ()
    def judge(self, seen): yield from ()

@dataclass(frozen=True)
class Stranger: pass

class Plain(Base): pass

@dataclass(frozen=True)
class Unfinished(Check):
    def asks(self): return ()

@dataclass(frozen=True)
class Clash(Base):
    owner: str = ""

@dataclass(frozen=True)
class Subjectless(Base):
    subject: ClassVar[str] = "queue"

@dataclass(frozen=True)
class Unresolved(Base):
    queue: "Queue" = ""

@dataclass(frozen=True)
class Odd(Base):
    call: Callable[[], int] | None = None

@dataclass(frozen=True)
class Needy(Base):
    first: str
    second: int

@dataclass(frozen=True)
class Between(Base):
    low: int = 0
    high: int = 10
    def __post_init__(self):
        if self.low > self.high: raise ValueError("low is above high")

@dataclass(frozen=True)
class Broken(Base):
    size: int = 1
    def __post_init__(self): 1 / self.size

@dataclass(frozen=True)
class Private(Base):
    key: str = "k"
    __repr__ = object.__repr__

@dataclass(frozen=True)
class Hurts(Base):
    needs_sandbox: ClassVar[bool] = True

def function(): pass
"""

THIRD_PARTY_MISTAKES = {
    "module missing": (
        "acme_check:Base",
        "use is \"acme_check:Base\", which cannot be imported: ModuleNotFoundError: No module named 'acme_check'",
    ),
    "module raises": ("raises:X", 'use is "raises:X", which cannot be imported: RuntimeError: no licence'),
    "module exits": ("exits:X", 'use is "exits:X", which cannot be imported: SystemExit: 3'),
    "no such class": ("acme:Clasch", 'use is "acme:Clasch", but acme has no Clasch; did you mean Clash?'),
    "no path": ("acme:", 'use is "acme:"; write package.module:Class'),
    "not a check": (
        "acme:Stranger",
        'use is "acme:Stranger", which is not a subclass of pytest_celery_health.Check',
    ),
    "a function": (
        "acme:function",
        'use is "acme:function", which is not a subclass of pytest_celery_health.Check',
    ),
    "not a dataclass": (
        "acme:Plain",
        'use is "acme:Plain", which is not a dataclass; put @dataclass(frozen=True) above it',
    ),
    "abstract": ("acme:Unfinished", 'use is "acme:Unfinished", which does not define judge'),
    "a common key as field": (
        "acme:Clash",
        'use is "acme:Clash", which has a field owner, a key that every row has; rename the field',
    ),
    "a subject that is no field": (
        "acme:Subjectless",
        'use is "acme:Subjectless", which has subject = "queue", but no such field',
    ),
    "annotations that do not resolve": (
        "acme:Unresolved",
        'use is "acme:Unresolved", which has annotations that do not resolve at run time:'
        " name 'Queue' is not defined",
    ),
}


@pytest.fixture
def acme(project: Path) -> None:
    (project / "acme.py").write_text(THIRD_PARTY)
    (project / "raises.py").write_text('raise RuntimeError("no licence")')
    (project / "exits.py").write_text("raise SystemExit(3)")


@pytest.mark.usefixtures("acme")
class TestThirdParty:
    @pytest.mark.parametrize(("use", "told"), THIRD_PARTY_MISTAKES.values(), ids=THIRD_PARTY_MISTAKES)
    def test_an_unusable_check_is_named(self, contract: From, use: str, told: str) -> None:
        assert mistakes(contract, row(use=use)) == [
            f"pyproject.toml:5: [tool.celery-health.check.r] {told}",
        ]

    @pytest.mark.parametrize(
        ("use", "lines", "told"),
        [
            ("Odd", ["call = 5"], ["6: call is of a type that TOML cannot write: typing.Callable[[], int]"]),
            ("Needy", ['first = "x"'], ["4: second is missing; wanted a whole number"]),
            (
                "Needy",
                ["first = 1"],
                [
                    '6: first is 1, a whole number; wanted text: write "1"',
                    "4: second is missing; wanted a whole number",
                ],
            ),
            ("Between", ["low = 11"], ["6: low is above high"]),
            ("Between", ["high = 1", "low = 11"], ["7: low is above high"]),
            ("Broken", ["size = 0"], ["6: size: ZeroDivisionError: division by zero"]),
            ("Hurts", ['on = ["sandbox", "stg"]'], ['6: on: target "stg" is not declared; targets: sandbox']),
        ],
    )
    def test_its_fields_are_held_to_the_same_grammar(
        self, contract: From, use: str, lines: list[str], told: list[str]
    ) -> None:
        expected = [line.partition(": ") for line in told]

        assert sorted(mistakes(contract, row(*lines, use=f"acme:{use}"))) == sorted(
            f"pyproject.toml:{number}: [tool.celery-health.check.r] {text}" for number, _, text in expected
        )

    def test_what_breaks_things_is_not_for_a_live_target(self, contract: From) -> None:
        text = target('broker = "env:B"', 'expect_host = "h"')

        assert mistakes(
            contract, text + '\n[tool.celery-health.check.r]\nuse = "acme:Hurts"\non = "stg"'
        ) == [
            "pyproject.toml:9: [tool.celery-health.check.r] on names stg, but acme:Hurts is judged in the sandbox only",
        ]
