"""Point an app at the sandbox, whatever it says in code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery

#: Transport options about the layout of the data and the pace of the client. All others may say where the
#: broker is, or who we are to it.
_KEPT = frozenset(
    {
        "ack_emulation",
        "confirm_publish",
        "fanout_patterns",
        "fanout_prefix",
        "global_keyprefix",
        "health_check_interval",
        "interval_max",
        "interval_start",
        "interval_step",
        "max_connections",
        "max_retries",
        "polling_interval",
        "priority_steps",
        "queue_order_strategy",
        "read_timeout",
        "retry_on_timeout",
        "retry_policy",
        "sep",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_timeout",
        "unacked_index_key",
        "unacked_key",
        "unacked_mutex_expire",
        "unacked_mutex_key",
        "unacked_restore_limit",
        "visibility_timeout",
        "write_timeout",
    }
)

#: What else would say where the broker or the backend is, or how to log in.
_UNSET = (
    "broker_host",
    "broker_login_method",
    "broker_password",
    "broker_port",
    "broker_transport",
    "broker_user",
    "broker_vhost",
    "redis_backend_credential_provider",
    "redis_backend_use_ssl",
    "redis_db",
    "redis_host",
    "redis_password",
    "redis_port",
    "redis_username",
)


_MISSING = object()


def redirect(
    app: Celery, broker_url: str, backend_url: str = "", *, options: Mapping[str, Any] | None = None
) -> Callable[[], None]:
    """Make `app` use this broker, and this result backend ("" turns results off); what is returned undoes it.

    SSL, credentials and the transport options that say where to connect are dropped; those about
    prefixes, separators, priorities and timeouts stay, under `options`. Cached pools and the cached backend
    are dropped, not closed.
    """
    changes: dict[str, Any] = dict.fromkeys(_UNSET)
    changes |= {
        "broker_url": broker_url,
        "broker_read_url": broker_url,
        "broker_write_url": broker_url,
        "broker_use_ssl": False,
        "broker_transport_options": {**_kept(app.conf.get("broker_transport_options")), **(options or {})},
        "result_backend": backend_url or "disabled://",
        "result_backend_transport_options": _kept(app.conf.get("result_backend_transport_options")),
    }
    if app.conf.get("redbeat_redis_url"):
        changes["redbeat_redis_url"] = broker_url
        changes["redbeat_redis_use_ssl"] = None
        changes["redbeat_redis_options"] = {}
    prefix = (app.conf.prefix or "").lower()
    # The same setting may also be there under an older or prefixed name, which would be found first.
    names = {str(name) for mapping in app.conf.maps for name in mapping}
    before: dict[str, Any] = {}
    for key, value in changes.items():
        for name in {key, *(name for name in names if name.lower() in (key, prefix + key))}:
            before[name] = app.conf.changes.get(name, _MISSING)
            app.conf.changes[name] = value
    put_back = forget(app)

    def undo() -> None:
        for name, value in before.items():
            if value is _MISSING:
                app.conf.changes.pop(name, None)
            else:
                app.conf.changes[name] = value
        put_back()

    return undo


def _kept(options: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (options or {}).items() if key in _KEPT}


def forget(app: Celery) -> Callable[[], None]:
    """Drop the app's pools, backend and class of backend, without closing them; what is returned puts them
    back."""
    # Celery has no public way to drop these without closing them for good.
    pool, backend, local, backend_cls = app._pool, app._backend_cache, app._local, app.backend_cls
    producers = app.amqp._producer_pool if "amqp" in app.__dict__ else None
    redbeat = app.__dict__.pop("redbeat_conf", None)
    app._pool = app._backend_cache = app.backend_cls = None
    app._local = threading.local()  # of backends that each thread has one of
    if "amqp" in app.__dict__:
        app.amqp._producer_pool = None

    def put_back() -> None:
        app._pool, app._backend_cache, app._local, app.backend_cls = pool, backend, local, backend_cls
        if "amqp" in app.__dict__:
            app.amqp._producer_pool = producers
        app.__dict__.pop("redbeat_conf", None)
        if redbeat is not None:
            app.redbeat_conf = redbeat

    return put_back
