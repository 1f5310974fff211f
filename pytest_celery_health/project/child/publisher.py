"""A function of the project that publishes, called in sessions of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery

from pytest_celery_health.project.child.describe import describe
from pytest_celery_health.project.child.load import LoadError, attribute, load, set_up_django
from pytest_celery_health.project.child.sessions import called, serve


def publisher(job: dict[str, Any]) -> None:
    """Serve sessions in which `job["function"]` and `job["then"]` can be called."""
    app = load(job["app"], hook=job["hook"], target=job["target"])
    set_up_django()
    functions = {name: _function(job, job[name]) for name in ("function", "then") if job[name]}
    job["doing"] = ""
    told = describe(app, job["app"])
    serve(job, {"queues": told["queues"]}, lambda: _Publishes(app, functions, job["path"]))


def _function(job: dict[str, Any], name: str) -> Callable[[], Any]:
    job["doing"] = name
    found = attribute(name)
    if not callable(found):
        raise LoadError(f"{name} is a {type(found).__name__}, which nobody can call")
    function: Callable[[], Any] = found
    return function


class _Publishes:
    def __init__(self, app: Celery, functions: Mapping[str, Callable[[], Any]], path: list[str]) -> None:
        self._app = app
        self._functions = functions
        self._path = path

    def do(self, do: str, gives_up: float) -> dict[str, Any]:
        """Call "function" or "then"."""
        found, said = called(self._functions[do], self._path, gives_up)
        refused = _refused(found)
        if refused:
            said |= {"ended": "refused", "error": refused}
        # Those too that a call has made up on its way.
        return {**said, "queues": [str(queue) for queue in self._app.amqp.queues]}


def _refused(found: Any) -> str:
    """How what was returned says that nothing was sent; "" if it does not."""
    if found is False:
        return "False"
    if isinstance(found, tuple) and len(found) > 1:  # Flask: body and status
        found = found[1]
    status = found if type(found) is int else getattr(found, "status_code", None)
    return f"HTTP {status}" if isinstance(status, int) and 400 <= status < 600 else ""
