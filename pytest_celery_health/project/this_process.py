"""The user's app in the process of the tests, which imports it as it likes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from celery import Celery, _state

from pytest_celery_health.project.child import load


def app_of(name: str | Celery) -> Celery | None:
    """The app of this name, as the contract words it; for "" the current one. None where there is none.

    A factory is called once. Raises what `load.find` raises.
    """
    if isinstance(name, str) and not name:
        app = _state._tls.current_app or _state.default_app
        return None if app is None or is_fallback(app) else app
    made_by = load.factory(name) if isinstance(name, str) else None
    if made_by is None:
        return load.as_app(name, repr(name))
    if made_by not in _made:
        _made[made_by] = load.as_app(made_by(), str(name))
    return _made[made_by]


def is_fallback(app: Celery) -> bool:
    """Whether it is what Celery makes up where there is no app."""
    return app is _state.default_app and app.main == "default"


def load_modules(app: Celery) -> None:
    """Import what a worker imports: most handlers live in modules that nobody else does."""
    if app not in _loaded:
        app.finalize()
        app.loader.import_default_modules()
        _loaded.add(app)


_made: WeakKeyDictionary[Callable[[], Any], Celery] = WeakKeyDictionary()
_loaded: WeakSet[Celery] = WeakSet()
