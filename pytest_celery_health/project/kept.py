"""What the project's modules keep of a URL from when they were imported: constants, Redis clients, pools."""

from __future__ import annotations

import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache, partial
from types import ModuleType
from typing import Any

from pytest_celery_health.project.loaded import loaded

#: What says where a Redis client connects, and as whom. All else of its options stays.
_PLACE = ("connection_class", "credential_provider", "db", "host", "password", "path", "port", "username")


@contextmanager
def replaced(urls: Mapping[str, str], packages: Iterable[str] = ()) -> Iterator[None]:
    """Have the project's modules hold other URLs; at the end they hold what they held.

    urls: the new URL by the one that a module may hold, in a global of its own, or in that of a Redis client
        or pool.
    packages: such as are the project's though they are installed.

    A constant of a module that is imported meanwhile, and took the new URL from the environment or the app,
    gets the old one in the end.
    """
    urls = {old: new for old, new in urls.items() if old != new}
    packages = frozenset(packages)
    before = set(sys.modules)
    with ExitStack() as stack:
        for module in _modules(packages):
            for name, value in _globals(module):
                if isinstance(value, str):
                    if value in urls:
                        stack.callback(_swap(module, name, urls[value]))
                elif _is_client(value):
                    stack.callback(_move(value, "connection_pool", urls))
                elif _is_pool(value):
                    stack.callback(_move(module, name, urls))
        try:
            yield
        finally:
            back = {new: old for old, new in reversed(urls.items())}
            for module in _modules(packages):
                if module.__name__ not in before:
                    for name, value in _globals(module):
                        if isinstance(value, str) and value in back:
                            setattr(module, name, back[value])


def _modules(packages: frozenset[str]) -> list[ModuleType]:
    return [module for module in loaded() if _is_the_projects(module, packages)]


def _is_the_projects(module: ModuleType, packages: frozenset[str]) -> bool:
    package = module.__name__.partition(".")[0]
    if package in packages:
        return True
    file = vars(module).get("__file__")
    return isinstance(file, str) and package != "pytest_celery_health" and not file.startswith(_libraries())


@lru_cache(maxsize=1)
def _libraries() -> tuple[str, ...]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return (*paths, *site.getsitepackages(), site.getusersitepackages())


def _globals(module: ModuleType) -> list[tuple[str, Any]]:
    return list(vars(module).items())


def _swap(module: ModuleType, name: str, value: str) -> Callable[[], None]:
    before = vars(module)[name]
    setattr(module, name, value)

    def put_back() -> None:
        if vars(module).get(name) == value:  # else somebody else changed it, and knows why
            setattr(module, name, before)

    return put_back


def _is_client(value: Any) -> bool:
    return type(value).__module__.startswith("redis.") and "connection_pool" in getattr(value, "__dict__", {})


def _is_pool(value: Any) -> bool:
    return type(value).__module__.startswith("redis.") and hasattr(type(value), "get_connection")


def _move(holder: Any, name: str, urls: Mapping[str, str]) -> Callable[[], None]:
    """Have a pool of Redis that leads to one of these URLs be another, to the new one, where it is held."""
    pool = getattr(holder, name)
    new = next((new for old, new in urls.items() if _leads_to(pool, old)), "")
    if not new.startswith(("redis://", "rediss://")):
        return _nothing
    options = {
        key: value
        for key, value in pool.connection_kwargs.items()
        if key not in _PLACE and not key.startswith("ssl")
    }
    moved = type(pool).from_url(new, **options)
    setattr(holder, name, moved)
    return partial(_move_back, holder, name, pool, moved)


def _nothing() -> None: ...


def _move_back(holder: Any, name: str, pool: Any, moved: Any) -> None:
    if getattr(holder, name, None) is moved:  # else somebody else changed it, and knows why
        setattr(holder, name, pool)
    closing: Any = None
    with suppress(Exception):
        closing = moved.disconnect()
    if hasattr(closing, "close"):  # of an asynchronous client, whose loop has gone
        closing.close()


def _leads_to(pool: Any, url: str) -> bool:
    from redis.connection import parse_url

    try:
        told: Any = parse_url(url)  # type: ignore[no-untyped-call,unused-ignore]
    except ValueError:  # not Redis
        return False
    has = getattr(pool, "connection_kwargs", {})
    wanted = (told.get("host", "localhost"), told.get("port", 6379), told.get("db", 0))
    return (has.get("host", "localhost"), has.get("port", 6379), has.get("db") or 0) == wanted
