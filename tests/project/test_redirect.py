"""In the sandbox an app's broker and backend are the sandbox's, whatever the app says, and wherever."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from pytest_celery_health.project.describe import call, describe
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox.seal import clean_environ

Write = Callable[..., AppSpec]

SANDBOX = "redis://127.0.0.1:7001/0"
RESULTS = "redis://127.0.0.1:7001/1"
PRODUCTION = "rediss://:s3cret@prod.example:6379/3"

WHERE = """
import importlib

CONNECT = ("host", "port", "password", "db", "username")

def where():
    app = importlib.import_module("shop").app
    backend = app.backend
    with app.producer_pool.acquire() as producer:
        sender = producer.__connection__
    return {
        "read": app.connection_for_read().as_uri(include_password=True),
        "write": app.connection_for_write().as_uri(include_password=True),
        "pool": app.pool.connection.as_uri(include_password=True),
        "sender": sender.as_uri(include_password=True),
        "ssl": bool(app.connection_for_write().ssl),
        "backend": backend.as_uri(include_password=True),
        "params": {key: value for key, value in backend.connparams.items() if key in CONNECT},
        "options": app.conf.broker_transport_options,
    }
"""

CLEAN = {
    "read": SANDBOX,
    "write": SANDBOX,
    "pool": SANDBOX,
    "sender": SANDBOX,
    "ssl": False,
    "backend": RESULTS,
    "params": {"host": "127.0.0.1", "port": 7001, "password": None, "db": 1},
    "options": {},
}


def _where(project: Write, shop: str, **files: str) -> dict[str, Any]:
    named = {f"{name}.py": text for name, text in files.items()}
    spec = project("shop", {"shop.py": shop, "where.py": WHERE, **named})
    environ = clean_environ(os.environ, broker_url=SANDBOX, backend_url=RESULTS)
    found: dict[str, Any] = call(spec, "where:where", timeout=20, environ=environ)
    return found


APPS = {
    "arguments": f'app = Celery("shop", broker="{PRODUCTION}", backend="{PRODUCTION}")',
    "settings": f'app = Celery("shop")\napp.conf.broker_url = app.conf.result_backend = "{PRODUCTION}"',
    "reading and writing apart": (
        f'app = Celery("shop")\napp.conf.broker_read_url = app.conf.broker_write_url = "{PRODUCTION}"'
    ),
    "a module of settings": 'app = Celery("shop")\napp.config_from_object("settings")',
    "a module of old settings": 'app = Celery("shop")\napp.config_from_object("old_settings")',
    "a namespace": 'app = Celery("shop")\napp.config_from_object("named_settings", namespace="CELERY")',
    "a namespace, later": (
        'app = Celery("shop")\napp.config_from_object("named_settings", namespace="CELERY")\n'
        'app.conf["CELERY_BROKER_USE_SSL"] = True\napp.conf["CELERY_REDIS_PASSWORD"] = "s3cret"'
    ),
    "parts": (
        'app = Celery("shop")\n'
        'app.conf.update(broker_host="prod.example", broker_user="me", broker_password="pw", '
        'broker_port=1, broker_vhost="v", broker_transport="pyamqp", broker_login_method="EXTERNAL", '
        'redis_host="prod.example", redis_password="pw", redis_username="me", redis_port=1, redis_db=9)'
    ),
    "SSL": (
        f'app = Celery("shop", broker="{PRODUCTION}", backend="{PRODUCTION}")\n'
        'app.conf.broker_use_ssl = {"ssl_cert_reqs": 0, "ssl_keyfile": "/none"}\n'
        'app.conf.redis_backend_use_ssl = {"ssl_cert_reqs": 0, "ssl_keyfile": "/none"}'
    ),
    "a backend class": (
        "from celery.backends.redis import RedisBackend\n"
        "class Own(RedisBackend):\n    pass\n"
        f'app = Celery("shop", backend=lambda app, url: Own(app=app, url="{PRODUCTION}"))'
    ),
    "a task module": 'app = Celery("shop", include=["late"])',
    "after it is configured": (
        'app = Celery("shop")\n@app.on_after_configure.connect\ndef later(sender, **kwargs):\n'
        f'    sender.conf.update(broker_url="{PRODUCTION}", broker_use_ssl=True)'
    ),
    "what was connected before": (
        f'app = Celery("shop", broker="{PRODUCTION}", backend="{PRODUCTION}")\n'
        "app.pool, app.backend, app.producer_pool"
    ),
}
SETTINGS = f'broker_url = result_backend = "{PRODUCTION}"\nbroker_use_ssl = {{"ssl_cert_reqs": 0}}\n'
MODULES = {
    "settings": SETTINGS,
    "old_settings": (
        f'BROKER_URL = CELERY_RESULT_BACKEND = "{PRODUCTION}"\nBROKER_USE_SSL = {{"ssl_cert_reqs": 0}}\n'
    ),
    "named_settings": (
        f'CELERY_BROKER_URL = CELERY_RESULT_BACKEND = "{PRODUCTION}"\n'
        'CELERY_BROKER_USE_SSL = {"ssl_cert_reqs": 0}\n'
        'CELERY_REDIS_BACKEND_USE_SSL = {"ssl_cert_reqs": 0}\n'
    ),
    "late": f'from shop import app\napp.conf.update(broker_url="{PRODUCTION}", broker_use_ssl=True)\n',
}


@pytest.mark.slow
@pytest.mark.parametrize("app", APPS)
def test_every_way_to_name_production_leads_to_the_sandbox(project: Write, app: str) -> None:
    assert _where(project, f"from celery import Celery\n{APPS[app]}\n", **MODULES) == CLEAN


def test_options_about_the_data_stay_and_those_about_the_connection_go(project: Write) -> None:
    options = {
        "global_keyprefix": "shop:",
        "sep": "|",
        "priority_steps": [0, 5],
        "visibility_timeout": 60,
        "master_name": "mymaster",
        "sentinel_kwargs": {"password": "s3cret"},
        "client_key": "/none",
    }
    found = _where(
        project,
        f'from celery import Celery\napp = Celery("shop")\napp.conf.broker_transport_options = {options!r}\n',
    )
    assert found["options"] == {
        "global_keyprefix": "shop:",
        "sep": "|",
        "priority_steps": [0, 5],
        "visibility_timeout": 60,
    }


def test_a_sandbox_without_results_turns_them_off(project: Write) -> None:
    spec = project(
        "shop",
        {
            "shop.py": f'from celery import Celery\napp = Celery("shop", backend="{PRODUCTION}")\n'
            "def backend():\n    return type(app.backend).__name__\n"
        },
    )
    environ = clean_environ(os.environ, broker_url=SANDBOX, backend_url="")
    assert call(spec, "shop:backend", timeout=20, environ=environ) == "DisabledBackend"


def test_redbeat_would_keep_its_entries_in_the_sandbox(project: Write) -> None:
    shop = f'from celery import Celery\napp = Celery("shop")\napp.conf.redbeat_redis_url = "{PRODUCTION}"\n'
    environ = clean_environ(os.environ, broker_url=SANDBOX, backend_url="")
    info = describe(project("shop", {"shop.py": shop}), timeout=20, environ=environ)
    assert info.redbeat == {"redbeat_redis_url": SANDBOX}
    assert info.broker_url == SANDBOX


def test_a_contracts_variable_does_not_win_over_the_sandboxs(project: Write) -> None:
    shop = 'from celery import Celery\napp = Celery("shop")\n'
    spec = project("shop", {"shop.py": shop}, env={"CELERY_BROKER_URL": PRODUCTION})
    environ = clean_environ({**os.environ, **spec.env}, broker_url=SANDBOX, backend_url=RESULTS)
    assert describe(spec, timeout=20, environ=environ).broker_url == SANDBOX
