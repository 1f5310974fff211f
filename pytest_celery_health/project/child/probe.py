"""A health check of the project, called in sessions of its own."""

from __future__ import annotations

import gc
import inspect
import json
import logging
import os
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any

from celery import Celery

from pytest_celery_health.masking import mask, secrets_in
from pytest_celery_health.project import values
from pytest_celery_health.project.child import web
from pytest_celery_health.project.child.describe import describe, registered
from pytest_celery_health.project.child.load import attribute, load, private_cache, set_up_django
from pytest_celery_health.project.child.sessions import awaited, call, import_clients, serve
from pytest_celery_health.project.child.verdicts import body_of, figures, meaning
from pytest_celery_health.project.loaded import loaded

#: Priorities over which messages are spread: those of which kombu makes a key each on Redis.
_PRIORITIES = (0, 3, 6, 9)
#: Above the layer of this module, and asked for by name.
_FILLING = "pytest_celery_health.sandbox.queues.filling:Filling"
_CLOCK = "pytest_celery_health.clock:CeleryClock"
_FAULT = "pytest_celery_health.sandbox.probes.states:fault"
_LONGEST = 300


def probe(job: dict[str, Any]) -> None:
    """Serve sessions in which a health check can be called. Raises whatever the user's code raises."""
    app = load(job["app"], hooks=job["hooks"], target=job["target"])
    set_up_django()
    import_clients(app)
    described = describe(app, job["app"])
    loaded: dict[str, Callable[[], Any]] = {}

    def prepare(**probe: Any) -> Callable[[], _Session]:
        key = json.dumps(probe)
        if key not in loaded:
            job["loads"] = probe["call"] or probe["wsgi"] or probe["asgi"]
            loaded[key] = _caller(probe)
            if probe["host"]:
                attribute(_FAULT)
        own = {path.partition(":")[0].partition(".")[0] for path in (job["app"], job["loads"]) if path}
        return lambda: _Session(app, loaded[key], job["path"], probe, own)

    serve(job, {**{key: described[key] for key in _TOLD}, "registered": registered(app)}, prepare)


_TOLD = ("default_queue", "queues", "control_exchange", "event_exchange", "broker_transport_options")


def _caller(probe: dict[str, Any]) -> Callable[[], Any]:
    """What calls the health check, and returns or raises what it does."""
    if probe["wsgi"] or probe["asgi"]:
        path = probe["wsgi"] or probe["asgi"]
        found = attribute(path.removesuffix("()"))
        found = found() if path.endswith("()") else found  # a factory
        ask = web.ask_wsgi if probe["wsgi"] else web.ask_asgi
        return lambda: ask(found, probe["path"], probe["headers"])
    found, given = attribute(probe["call"]), probe["given"]
    if inspect.isclass(found):
        return lambda: _checked(found(**given))
    if not callable(found):
        return lambda: _checked(found)
    return lambda: found(**given)


def _checked(instance: Any) -> Any:
    """What an instance with `check_status()` says: by its errors, by what that returns, or by raising."""
    for name in ("run_check", "check_status", "run", "check", "__call__"):
        method = getattr(instance, name, None)
        if method is not None:
            said = awaited(method())
            errors = getattr(instance, "errors", None)
            if errors:
                return {"healthy": False, "errors": "; ".join(map(str, errors))}
            return said
    raise TypeError(f"{type(instance).__name__} has none of run_check(), check_status() and run()")


class _Session:
    def __init__(
        self,
        app: Celery,
        call: Callable[[], Any],
        path: list[str],
        probe: Mapping[str, Any],
        own: Collection[str],
    ) -> None:
        self.app = app
        self._call = call
        self._path = path
        self._gauge = probe["gauge"]
        self._host = probe["host"]
        self._host_body = probe["host_body"]
        self._own = own
        self._seen = ExitStack()
        urls = (os.environ.get("CELERY_BROKER_URL", ""), os.environ.get("CELERY_RESULT_BACKEND", ""))
        self._secrets = [each for each in secrets_in(*urls) if len(each) > 3]
        self._logged: list[str] = []
        self._filling: Any = None
        logging.getLogger().addHandler(_Kept(self._logged))

    def do(self, do: str, **what: Any) -> dict[str, Any]:
        """What is asked, done."""
        if do == "call":
            return self.call(**what)
        try:
            return getattr(self, do)(**what) or {}
        except Exception as error:  # noqa: BLE001 - told to the parent
            return {"error": mask(f"{type(error).__name__}: {error}", self._secrets)}

    def call(self, gives_up: float, queue: str) -> dict[str, Any]:
        """What one call of the health check gave."""
        self._logged.clear()
        written = os.fstat(1).st_size
        before = self.left()
        called = call(self._call, gives_up)
        said: dict[str, Any] = {"took": called.took, "cpu": called.cpu}
        if called.error is None:
            means = meaning(called.found)
            said |= {"verdict": means.verdict, "kind": means.kind, "said": self._short(means.said)}
            said |= {"status": means.status, "json": means.json}
            said["figures"] = figures(body_of(called.found), queue)
        else:
            said |= {"verdict": "raised", "said": self._short(called.text()), "where": called.at(self._path)}
        said["shows"] = [*self._shows(called.found, called.error, written)]
        if self._gauge:
            said["gauge"] = _samples(self._gauge, queue)
        del called
        gc.collect()
        return {**said, "before": before, **self.left()}

    def left(self) -> dict[str, int]:
        """How many threads beside this one, and sockets, there are now."""
        return {"threads": threading.active_count() - 1, "sockets": _sockets()}

    def _short(self, text: str) -> str:
        text = " ".join(mask(text, self._secrets).split())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

    def _shows(self, found: Any, error: BaseException | None, written: int) -> Iterator[str]:
        """Where the broker's password is to be read."""
        texts = {"answer": self._all_of(found), "log": "\n".join(self._logged)}
        if error is not None:
            texts["exception"] = "".join(traceback.format_exception_only(type(error), error))
        sys.stdout.flush()
        sys.stderr.flush()
        texts["output"] = os.pread(1, os.fstat(1).st_size - written, written).decode(errors="replace")
        for what, text in texts.items():
            if any(secret in text for secret in self._secrets):
                yield what

    def _all_of(self, found: Any) -> str:
        headers = getattr(found, "headers", "")
        with suppress(Exception):
            return f"{body_of(found)!r} {found!r} {headers!r}"
        return ""

    # What the world of the probe needs to be done by the app's own means.

    def see(self, at: float | None, host_fault: str) -> None:
        """From now on the project's code sees this time, and the probe's host in this fault."""
        self._seen.close()
        if self._host:
            arguments: dict[str, Any] = {"status": 200, "body": self._host_body}
            if host_fault:
                arguments = {"body": self._host_body} if host_fault == "host_slow" else {}
            fault = attribute(_FAULT)(host_fault or "host_answers")
            self._seen.enter_context(fault.act(None, self._host, **arguments))
        if at is not None:
            clock = self._seen.enter_context(attribute(_CLOCK)())
            clock.freeze(at, also=self._own)

    def tell(self) -> dict[str, Any]:
        """What the function returns, and what speaks for its never being told anything else."""
        found = awaited(self._call())
        return {"value": values.dump(found), "alone": private_cache() if found is None else ""}

    def fill(self, queue: str, count: int) -> None:
        """Have every queue of the app's be there, one of them with messages, over all priorities."""
        self._filling = attribute(_FILLING)(self.app)
        spread = {each: len(range(index, count, len(_PRIORITIES))) for index, each in enumerate(_PRIORITIES)}
        for name in {*describe(self.app, "")["queues"], queue}:
            self._filling.put(
                name,
                ready=spread if name == queue else {},
                unacked=0,
                unacked_for=0.0,
                task="celery_health.waits",
                args=(),
                kwargs={},
                eta=None,
                expires=None,
            )

    def empty(self) -> None:
        """Have them all be gone."""
        self._filling.close()


class _Kept(logging.Handler):
    def __init__(self, kept: list[str]) -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it as a reader would see it."""
        with suppress(Exception):
            self._kept.append(logging.Formatter().format(record))


def _samples(name: str, queue: str) -> list[float | None]:
    """What a metric of this process says of a queue; None for not a number."""
    for registry in _registries():
        found = [
            None if sample.value != sample.value else sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == name and (queue in sample.labels.values() or not sample.labels)
        ]
        if found:
            return found
    return []


def _registries() -> Iterator[Any]:
    """The usual one, and others that modules keep."""
    from prometheus_client import REGISTRY, CollectorRegistry

    yield REGISTRY
    kept = [each for module in loaded() for each in list(vars(module).values())]
    yield from {id(each): each for each in kept if type(each) is CollectorRegistry}.values()


def _sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for entry in os.listdir("/dev/fd"):
        with suppress(OSError, ValueError):
            count += stat.S_ISSOCK(os.fstat(int(entry)).st_mode)
    return count
