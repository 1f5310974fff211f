"""The user's app in the process of the tests, which imports it as it likes."""

from __future__ import annotations

from weakref import WeakSet

from celery import Celery, _state

from pytest_celery_health.project.child import load


def app_of(name: str) -> Celery | None:
    """The app of this name, as the contract words it; for "" the current one. None where there is none.

    Raises what `load.find` raises.
    """
    app = load.find(name) if name else _state._tls.current_app or _state.default_app
    return None if app is None or is_fallback(app) else app


def is_fallback(app: Celery) -> bool:
    """Whether it is what Celery makes up where there is no app."""
    return app is _state.default_app and app.main == "default"


def load_modules(app: Celery) -> None:
    """Import what a worker imports: most handlers live in modules that nobody else does."""
    if app not in _loaded:
        app.finalize()
        app.loader.import_default_modules()
        _loaded.add(app)


_loaded: WeakSet[Celery] = WeakSet()
