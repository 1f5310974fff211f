"""This very process, pointed at a broker for a while, and put back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from celery import Celery, _state
from kombu import Connection, pools

from pytest_celery_health.project.child.redirect import forget, redirect
from pytest_celery_health.project.kept import replaced
from pytest_celery_health.project.variables import redirecting

#: Seconds that the connections of the app's pools get to close.
_PATIENCE = 2.0


@contextmanager
def pointed(
    app: Celery,
    url: str,
    result: str = "",
    *,
    options: Mapping[str, Any] | None = None,
    env: Iterable[str] = (),
) -> Iterator[None]:
    """Have everything in this process that uses `app`, or reads its URL, use another broker.

    url, result: of the broker and of the result backend; "" turns results off.
    options: transport options on top of those of the app.
    env: variables that shall hold the broker's URL, beside Celery's own.

    Modules of the project that keep a URL in a global get the new one, and so do Redis clients that they keep
    there: `REDIS_URL = os.environ["REDIS_URL"]`. What they keep elsewhere, in a class or in another client,
    stays as it is.

    Other apps find the URLs in the environment; what they connected before is out of their sight meanwhile.

    Inside, `app` is the current and the default app. At the end the environment, the app's settings, its
    pools, its backend and the current app are as before, and what it had connected to `url` meanwhile is
    closed, in two seconds at most: the broker may hang. One may be within another; not for several threads at
    once.
    """
    env = tuple(env)
    wanted = redirecting(url, result, env)
    with ExitStack() as stack:
        stack.enter_context(provided(url, env))  # for settings that are read now
        own = _own_urls(app, url, result, env)
        stack.callback(redirect(app, url, result, options=options))
        stack.callback(_change_environment(wanted))
        stack.enter_context(_other_apps(app))
        stack.enter_context(_current(app))
        stack.enter_context(replaced(own, _packages(app)))
        stack.enter_context(_own_connections(url))
        yield


@contextmanager
def provided(url: str, env: Iterable[str]) -> Iterator[None]:
    """Have each of these variables that is not set hold the URL: modules that need them can be imported.

    A value that the user has set stays, so that what a module keeps of it is the user's own.
    """
    put_back = _change_environment({name: url for name in env if name not in os.environ})
    try:
        yield
    finally:
        put_back()


def _own_urls(app: Celery, url: str, result: str, env: Iterable[str]) -> dict[str, str]:
    """The new URL by each that the app or the environment has so far."""
    own = dict.fromkeys(_texts(os.environ.get(name) for name in env), url)
    for name in ("broker_url", "broker_read_url", "broker_write_url"):
        own |= dict.fromkeys(_texts((app.conf.get(name), getattr(app.conf, name))), url)
    if result:
        for text in _texts((app.conf.get("result_backend"), app.conf.result_backend)):
            own.setdefault(text, result)
    return own


def _texts(urls: Iterable[Any]) -> list[str]:
    return [url for url in urls if isinstance(url, str) and "://" in url]


def _packages(app: Celery) -> set[str]:
    """Where the app's own tasks are."""
    modules = (type(task).__module__ for name, task in app._tasks.items() if not name.startswith("celery."))
    return {module.partition(".")[0] for module in modules} - {"celery"}


def _change_environment(wanted: Mapping[str, str | None]) -> Callable[[], None]:
    before = {name: os.environ.get(name) for name in wanted}
    _set_environment(wanted)
    return lambda: _set_environment(before)


def _set_environment(wanted: Mapping[str, str | None]) -> None:
    for name, value in wanted.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _current(app: Celery) -> Iterator[None]:
    current, default = _state._tls.current_app, _state.default_app
    app.set_current()
    app.set_default()  # for threads that have no current app
    try:
        yield
    finally:
        _state._tls.current_app = current
        _state.set_default_app(default)


@contextmanager
def _other_apps(app: Celery) -> Iterator[None]:
    """Have none of them keep a connection from before, nor, at the end, one of those that are closed."""
    before = [each for each in list(_state._apps) if each is not app]
    with ExitStack() as stack:
        for each in before:
            stack.callback(forget(each))
        try:
            yield
        finally:
            for each in list(_state._apps):
                if each is not app and not any(each is known for known in before):
                    forget(each)


@contextmanager
def _own_connections(url: str) -> Iterator[None]:
    """Close what is made here for `url`; whoever has connections to it already, has them again at the end."""
    before = _take_pools(url)
    try:
        yield
    finally:
        made = _take_pools(url)
        for group, key, pool in before:
            dict.__setitem__(group, key, pool)
        # In a thread: a broker that hangs would not let a connection say goodbye.
        backends = [each._backend for each in list(_state._apps)]
        closing = threading.Thread(
            target=lambda: _close(backends, [pool for *_, pool in made]),
            name="close-connections",
            daemon=True,
        )
        closing.start()
        closing.join(_PATIENCE)


def _take_pools(url: str) -> list[tuple[Any, Any, Any]]:
    """Take kombu's pools for this URL out of its groups, as (group, key, pool)."""
    wanted = _place(Connection(url))
    # Producers first: they hold connections of the other pools.
    pairs = [(group, key) for group in (pools.producers, pools.connections) for key in list(dict.keys(group))]
    found: list[tuple[Any, Any, Any]] = [(group, key, dict.get(group, key)) for group, key in pairs]
    taken = [each for each in found if _place(getattr(each[2], "connections", each[2]).connection) == wanted]
    for group, key, _ in taken:
        dict.pop(group, key, None)
    return taken


def _place(connection: Connection) -> tuple[Any, ...]:
    told = connection.info()
    return tuple(
        told.get(key) for key in ("transport", "hostname", "port", "virtual_host", "userid", "password")
    )


def _close(backends: Iterable[Any], made: Iterable[Any]) -> None:
    """Close what result backends have connected, None being none, and whole pools."""
    for backend in backends:
        consumer = getattr(backend, "result_consumer", None)
        if consumer is not None:
            with suppress(Exception):
                consumer.stop()
            # A result that is collected later unsubscribes, and would connect again.
            for name in {"_pubsub", "_consumer"} & vars(consumer).keys():
                setattr(consumer, name, None)
        client: Any = getattr(backend, "__dict__", {}).get("client")  # cached, or never made
        if hasattr(client, "connection_pool"):
            with suppress(Exception):
                client.connection_pool.disconnect()
    for pool in made:
        with suppress(Exception):
            pool.force_close_all()
