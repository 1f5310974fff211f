"""The tests' own process pointed at a broker for a while: everything goes there, and comes back."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from types import ModuleType
from typing import Any

import pytest
from celery import Celery, _state, current_app
from kombu import Connection, pools
from redis import Redis

from pytest_celery_health.sandbox.here import pointed
from tests.sandbox.test_simulated import Server, private_redis

OWN = "redis://:s3cret@127.0.0.1:1/3"
RESULTS = "redis://:s3cret@127.0.0.1:1/4"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with private_redis(tmp_path_factory.mktemp("here")) as server:
        yield server


@pytest.fixture
def client(redis: Server) -> Iterator[Redis]:
    with Redis.from_url(redis.url) as client:
        client.flushall()
        yield client


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("CELERY_")]:
        monkeypatch.delenv(name)
    current, default = _state._tls.current_app, _state.default_app
    yield
    _state._tls.current_app = current
    _state.set_default_app(default)


def make(**conf: Any) -> Celery:
    app = Celery("code under test", broker=OWN, backend=RESULTS, set_as_current=False)
    app.conf.update(conf)

    @app.task(name="nap", shared=False)
    def nap() -> None: ...

    return app


def state(app: Celery) -> dict[str, Any]:
    """Everything that may have been changed."""
    return {
        "environment": dict(os.environ),
        "conf": dict(app.conf.changes),
        "urls": (
            app.conf.broker_url,
            app.conf.broker_read_url,
            app.conf.broker_write_url,
            app.conf.result_backend,
        ),
        "pool": app._pool,
        "producers": app.amqp._producer_pool,
        "backend": (app._backend_cache, app._local, app.backend_cls),
        "current": (_state._tls.current_app, _state.default_app),
        "kombu": (set(dict.keys(pools.connections)), set(dict.keys(pools.producers))),
    }


def connected(client: Redis) -> int:
    """How many others are connected to the broker."""
    return len(client.client_list()) - 1


def eventually_alone(client: Redis) -> None:
    until = time.monotonic() + 10
    while connected(client):
        assert time.monotonic() < until, client.client_list()
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # Celery's own
@pytest.mark.parametrize("used", [False, True], ids=["never used", "used before"])
def test_all_ways_of_the_app_lead_there_and_back(redis: Server, client: Redis, used: bool) -> None:
    app = make(broker_use_ssl={"ssl_cert_reqs": 0})
    if used:
        assert app.pool
        assert app.producer_pool
        assert app.backend
    app.conf.get("broker_url")
    before = state(app)
    with pointed(app, redis.url, redis.launch.result, options=redis.launch.options):
        assert current_app._get_current_object() is app
        sent = app.tasks["nap"].delay()
        app.send_task("other", queue="billing")
        app.backend.store_result(sent.id, 7, "SUCCESS")
        assert sent.get(timeout=5) == 7
        assert app.control.ping(timeout=0.05) == []
        with (
            app.connection() as one,
            app.connection_for_read() as two,
            Connection(app.conf.broker_url) as three,
        ):
            for connection in (one, two, three):
                assert connection.default_channel.client.ping()
        held = app.pool.acquire()  # and never released, as some health checks do
        assert held.connected
        assert (client.llen("celery"), client.llen("billing")) == (1, 1)
        assert connected(client) > 3
    assert state(app) == before
    eventually_alone(client)


def test_a_thread_without_an_app_of_its_own_goes_there_too(redis: Server) -> None:
    app = make()
    assert app.backend
    seen = []
    with pointed(app, redis.url, redis.launch.result):
        thread = threading.Thread(
            target=lambda: seen.extend(
                (current_app.conf.broker_url, app.backend.url, current_app.pool.connection.port)
            )
        )
        thread.start()
        thread.join()
    assert seen == [redis.url, redis.launch.result, Connection(redis.url).port]


def test_variables_are_set_and_put_back(redis: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", OWN)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", RESULTS)
    monkeypatch.setenv("REDIS_URL", OWN)
    monkeypatch.delenv("CACHE_URL", raising=False)
    app = make()
    before = dict(os.environ)
    with pointed(app, redis.url, env=["REDIS_URL", "CACHE_URL"]):
        assert {os.environ["CELERY_BROKER_URL"], os.environ["REDIS_URL"], os.environ["CACHE_URL"]} == {
            redis.url
        }
        assert "CELERY_RESULT_BACKEND" not in os.environ
        assert app.conf.result_backend == "disabled://"
        assert app.conf.broker_url == redis.url
        assert (
            Celery("made meanwhile", broker="redis://127.0.0.1:1/5", set_as_current=False).conf.broker_url
            == redis.url
        )
    assert dict(os.environ) == before
    assert app.conf.broker_url == OWN


def test_other_apps_go_there_too(redis: Server, client: Redis) -> None:
    known = make()
    assert known.pool
    assert known.backend
    before = state(known)
    with pointed(make(), redis.url, redis.launch.result, options=redis.launch.options):
        made = Celery("made meanwhile", broker="redis://127.0.0.1:1/5", set_as_current=False)
        for each in (known, made):
            each.send_task("x", queue="others")
            assert each.backend.url == redis.launch.result
        assert client.llen("others") == 2
    assert state(known) == before
    eventually_alone(client)
    with pointed(made, redis.url, options=redis.launch.options):  # it holds no pool that is closed
        made.send_task("x", queue="others")
    assert made.pool.connection.port == 1


def test_a_process_that_the_code_under_test_starts_goes_there_too(redis: Server, client: Redis) -> None:
    program = f"from celery import Celery; Celery(broker={OWN!r}).send_task('x', queue='from-a-child')"
    with pointed(make(), redis.url):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert client.llen("from-a-child") == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_everything_is_put_back_after_an_error(redis: Server, error: type[BaseException]) -> None:
    app = make()
    app.conf.get("broker_url")
    before = state(app)
    with suppress(error), pointed(app, redis.url):
        app.send_task("x")
        raise error
    assert state(app) == before


def test_one_within_another(redis: Server, client: Redis) -> None:
    """As a fault's proxy within a fleet; and the inner one may lead to the same broker as the outer."""
    app = make()
    proxy = redis.url.removesuffix("/0") + "/9"
    with pointed(app, redis.url, redis.launch.result, options={"polling_interval": 0.01}):
        app.send_task("x", queue="outer")
        outer = state(app)
        for url, db in ((proxy, 9), (redis.url, 0)):
            with pointed(app, url, options={"sep": "|"}):
                app.send_task("x", queue="inner")
                assert app.conf.broker_transport_options == {"polling_interval": 0.01, "sep": "|"}
            assert state(app) == outer
            client.execute_command("SELECT", db)
            assert client.llen("inner") == 1
        app.send_task("x", queue="outer")  # through the pool that it had before
        assert client.llen("outer") == 2
    assert app.conf.broker_url == OWN
    client.execute_command("SELECT", 0)
    eventually_alone(client)


SETTINGS = {
    "arguments": {},
    "old names": {"BROKER_URL": OWN, "CELERY_RESULT_BACKEND": RESULTS, "BROKER_USE_SSL": True},
    "a namespace": {
        "CELERY_BROKER_URL": OWN,
        "CELERY_RESULT_BACKEND": RESULTS,
        "CELERY_BROKER_USE_SSL": True,
    },
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_of_any_style(redis: Server, client: Redis, settings: str) -> None:
    app = Celery("styled", set_as_current=False)
    if SETTINGS[settings]:
        module = ModuleType("settings")
        vars(module).update(SETTINGS[settings])
        app.config_from_object(module, namespace="CELERY" if settings == "a namespace" else None)
    else:
        app = make()
    for _ in range(2):
        with pointed(app, redis.url, redis.launch.result):
            app.send_task("x")
            assert app.conf.broker_use_ssl is False
        assert (app.conf.broker_url, app.conf.result_backend) == (OWN, RESULTS)
        assert bool(app.conf.broker_use_ssl) is bool(SETTINGS[settings])
    assert client.llen("celery") == 2


def test_settings_that_are_read_late_are_the_users_own(
    redis: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a module keeps of the environment must not be a broker that is gone after the test."""
    (tmp_path / "late_settings.py").write_text("import os\nbroker_url = os.environ['REDIS_URL']\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("REDIS_URL", OWN)
    app = Celery("late", set_as_current=False)
    app.config_from_object("late_settings")
    with pointed(app, redis.url, env=["REDIS_URL"]):
        assert app.conf.broker_url == redis.url
    assert app.conf.broker_url == OWN
    del sys.modules["late_settings"]


def _ping(connection: Connection) -> None:
    with suppress(Exception):  # whatever it makes of the end
        connection.default_channel.client.ping()


@pytest.mark.slow
def test_a_broker_that_hangs_does_not_hold_the_end_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = make()
        begun = 0.0
        with pointed(app, f"redis://127.0.0.1:{silent.getsockname()[1]}/0"):
            connection = app.pool.acquire()
            stuck = threading.Thread(target=_ping, args=(connection,), daemon=True)
            stuck.start()
            with_us, _ = silent.accept()
            begun = time.monotonic()
        assert time.monotonic() - begun < 8
        with_us.close()
        stuck.join(10)
        assert app.conf.broker_url == OWN


# What modules keep.

SHOP = """
import os
import redis, redis.asyncio
from celery import Celery

BROKER = os.environ.get("REDIS_URL", "redis://:s3cret@127.0.0.1:1/3")
OTHER = "redis://127.0.0.1:1/7"
CLIENT = redis.Redis.from_url(BROKER, decode_responses=True, socket_timeout=3)
ELSEWHERE = redis.Redis.from_url(OTHER)
LOOP = redis.asyncio.Redis.from_url(BROKER)
POOL = redis.ConnectionPool.from_url(BROKER, socket_timeout=4)
app = Celery("shop", broker=BROKER, set_as_current=False)

def beat():
    with redis.Redis.from_url(BROKER) as client:
        return client.get("heartbeat"), CLIENT.get("heartbeat")
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], ModuleType]]:
    """Imports the module SHOP."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"shop_{token_hex(4)}"
    (tmp_path / f"{name}.py").write_text(SHOP)
    yield lambda: importlib.import_module(name)
    sys.modules.pop(name, None)


@pytest.mark.parametrize("variable", [False, True], ids=["the app's own URL", "a variable"])
def test_a_url_that_a_module_keeps_leads_there_too(
    shop: Callable[[], ModuleType],
    redis: Server,
    client: Redis,
    variable: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if variable:
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/8")
    module = shop()
    app = make() if variable else module.app
    before = dict(vars(module))
    pool = module.CLIENT.connection_pool
    client.set("heartbeat", "noon")
    with pointed(app, redis.url, env=["REDIS_URL"]):
        assert module.beat() == (b"noon", "noon")
        assert module.CLIENT.connection_pool.connection_kwargs["socket_timeout"] == 3
        assert module.LOOP.connection_pool.connection_kwargs["port"] == Connection(redis.url).port
        assert Redis(connection_pool=module.POOL).get("heartbeat") == b"noon"
        assert module.POOL.connection_kwargs["socket_timeout"] == 4
        assert module.ELSEWHERE.connection_pool.connection_kwargs["db"] == 7
        assert module.OTHER == "redis://127.0.0.1:1/7"
    assert dict(vars(module)) == before
    assert module.CLIENT.connection_pool is pool
    eventually_alone(client)


def test_a_module_that_is_imported_meanwhile_does_not_keep_it(
    shop: Callable[[], ModuleType], redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "redis://127.0.0.1:1/8"
    monkeypatch.setenv("REDIS_URL", own)
    with pointed(make(), redis.url, env=["REDIS_URL"]):
        module = shop()
        assert redis.url == module.BROKER
    assert own == module.BROKER


def test_a_constant_that_the_test_changes_stays_changed(
    shop: Callable[[], ModuleType], redis: Server
) -> None:
    module = shop()
    with pointed(module.app, redis.url):
        module.BROKER = "redis://127.0.0.1:1/9"
    assert module.BROKER == "redis://127.0.0.1:1/9"
