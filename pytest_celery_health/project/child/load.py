"""Load the user's app as `celery -A` would, in a process of its own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from celery import Celery
from celery.app.utils import find_app
from celery.utils.imports import import_from_cwd

from pytest_celery_health.project.child.redirect import redirect
from pytest_celery_health.spelling import article

_FACTORY = re.compile(r"(?P<path>[\w.]+:[\w.]+)\(\s*\)")


class LoadError(Exception):
    """The app is not what its name says. The message starts with the evidence."""


class HookError(LoadError):
    """A hook cannot be called, or returns no app."""


def load(
    app: str,
    *,
    hooks: Sequence[str] = (),
    target: str = "",
    found_is: Callable[[Celery], None] | None = None,
) -> Celery:
    """The app with all its task modules imported, finalized, current and the default.

    `app` is a name of Celery's -A grammar or a factory "package.module:create_app()"; the first of `hooks`
    ("FILE:FUNCTION", told `target`) that does not return None wins over it. In the sandbox
    (CELERY_HEALTH_SANDBOX=1) the app is pointed at CELERY_BROKER_URL and CELERY_RESULT_BACKEND, whatever its
    code says; `found_is` is told the app before.

    Raises LoadError, and whatever the user's code raises.
    """
    found = _hooked(hooks, target)
    if found is None:
        if hooks and not app:
            raise HookError(f"{' and '.join(hooks)} returned None for the target {target!r}, not an app")
        found = find(app)
    found.set_current()
    found.set_default()
    if found_is is not None:
        found_is(found)
    sealed = os.environ.get("CELERY_HEALTH_SANDBOX") == "1"
    if sealed:
        _redirect(found)
    found.loader.import_default_modules()
    found.finalize()
    if sealed:  # once more: a task module may have configured the app
        _redirect(found)
    return found


def set_up_django() -> None:
    """Have models and checks of a Django project be importable; nothing where there is no Django."""
    if os.environ.get("DJANGO_SETTINGS_MODULE"):
        import django  # type: ignore[import-untyped,unused-ignore]
        from django.apps import apps  # type: ignore[import-untyped,unused-ignore]

        if not apps.ready:
            django.setup()


def private_cache() -> str:
    """Why what a task writes into Django's default cache is seen by no other process; "" if it may be."""
    if "django" not in sys.modules or not os.environ.get("DJANGO_SETTINGS_MODULE"):
        return ""
    from django.conf import settings  # type: ignore[import-untyped,unused-ignore]

    kind = str(settings.CACHES.get("default", {}).get("BACKEND", "")).rpartition(".")[2]
    if kind == "LocMemCache":
        said = f"Django's default cache is a {kind}, in which each process sees only what it wrote itself"
    elif kind == "DummyCache":
        said = f"Django's default cache is a {kind}, which keeps nothing"
    else:
        return ""
    return f"{said}; set CACHES to one that processes share, such as Redis"


def _redirect(app: Celery) -> None:
    redirect(app, os.environ["CELERY_BROKER_URL"], os.environ.get("CELERY_RESULT_BACKEND", ""))


def find(name: str) -> Celery:
    """The app of this name, its task modules not yet imported."""
    made_by = factory(name)
    if made_by is not None:
        return as_app(made_by(), name)
    if ":" in name:
        return as_app(attribute(name, of_apps=True), name)
    try:
        found = find_app(name)
    except ModuleNotFoundError as error:
        holder, _, last = name.rpartition(".")
        if error.name != name or holder not in sys.modules:
            raise
        raise LoadError(f"{holder} has no {last!r}{_hint(sys.modules[holder], last, of_apps=True)}") from None
    except AttributeError as error:
        module = sys.modules.get(name)
        # The user's own AttributeErrors are about other objects.
        if module is None or error.obj not in (module, getattr(module, "celery", None)):
            raise
        raise LoadError(f"the module {name} has no Celery app") from None
    return as_app(found, name)


def factory(name: str) -> Callable[[], Any] | None:
    """The function that a name such as "package.module:create_app()" calls; None for other names."""
    found = _FACTORY.fullmatch(name)
    function: Callable[[], Any] | None = attribute(found["path"], of_apps=True) if found else None
    return function


def attribute(path: str, *, of_apps: bool = False) -> Any:
    """What "package.module:name.of.attribute" names: a function, or what leads to an app.

    Raises LoadError with the nearest name, or all there are, when the module has no such attribute.
    """
    module_name, _, names = path.partition(":")
    if not module_name or not names:
        raise LoadError(f"{path!r} is not of the form package.module:name")
    found: Any = import_from_cwd(module_name)
    seen = module_name
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise LoadError(f"{seen} has no {name!r}{_hint(found, name, of_apps=of_apps)}") from None
        seen = f"{seen}:{name}" if seen == module_name else f"{seen}.{name}"
    return found


def _hint(holder: object, name: str, *, of_apps: bool = False) -> str:
    import difflib  # not paid for by those who spell well
    import pkgutil

    names = [known for known in getattr(holder, "__dict__", ()) if not known.startswith("__")]
    if isinstance(holder, ModuleType) and hasattr(holder, "__path__"):
        modules = [module.name for module in pkgutil.iter_modules(holder.__path__)]
        if near := difflib.get_close_matches(name, modules, n=1):
            return f"; did you mean {holder.__name__}.{near[0]}?"
    others = [known for known in names if getattr(holder, known) is not Celery]
    if near := difflib.get_close_matches(name, others, n=1):
        return f"; did you mean {near[0]!r}?"
    if of_apps:
        apps = [known for known in names if isinstance(getattr(holder, known), Celery)]
        return f"; its apps are {', '.join(apps)}" if apps else ""
    module = getattr(holder, "__name__", "")
    functions = [known for known in names if _is_own_function(getattr(holder, known), module)]
    return f"; its functions are {', '.join(functions)}" if functions else ""


def _is_own_function(value: object, module: str) -> bool:
    return inspect.isfunction(value) and value.__module__ == module


def as_app(found: Any, name: str) -> Celery:
    """What was found by this name, if it is an app or leads to one. Raises LoadError."""
    if isinstance(found, Celery):
        # A proxy such as current_app would follow whichever app becomes current.
        current = getattr(found, "_get_current_object", None)
        return current() if current else found
    if isinstance(found, str):
        return find(found)
    in_flask = getattr(found, "extensions", None)
    if isinstance(in_flask, dict) and isinstance(in_flask.get("celery"), Celery):
        return in_flask["celery"]
    if inspect.isfunction(found):
        raise LoadError(f'{name} is a function; a factory is written "{name}()"')
    what = f"the module {found.__name__}" if isinstance(found, ModuleType) else article(type(found).__name__)
    raise LoadError(f"{name} is {what}, not a Celery app")


def _hooked(hooks: Sequence[str], target: str) -> Celery | None:
    for hook in hooks:
        found = _call_hook(hook, target)
        if found is not None:
            return _returned(found, hook)
    return None


def _returned(found: Any, hook: str) -> Celery:
    """The app that a hook returned or named. Raises HookError."""
    hook = hook.removeprefix(f"{os.getcwd()}/")
    said = f"{hook} returned {found!r}" if isinstance(found, str) else f"what {hook} returned"
    try:
        return as_app(found, said)
    except LoadError as error:
        raise HookError(f"{said}: {error}" if isinstance(found, str) else str(error)) from None
    except ModuleNotFoundError as error:
        if (
            isinstance(found, str)
            and error.name
            and f"{found.partition(':')[0]}.".startswith(f"{error.name}.")
        ):
            raise HookError(f"{said}, and there is no module {error.name}") from None
        raise


def _call_hook(hook: str, target: str) -> Any:
    file, _, name = hook.rpartition(":")
    module = _import_file(Path(file))
    function = getattr(module, name, None)
    if function is None:
        raise LoadError(f"{file} has no {name!r}{_hint(module, name)}")
    wanted = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    unknown = [parameter for parameter in wanted if parameter != "target"]
    if unknown:
        raise HookError(f"{hook} takes {', '.join(unknown)}; a child process can tell it only target")
    return function(target) if wanted else function()


def _import_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise LoadError(f"{file} is no file")
    names = [] if file.name == "__init__.py" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").exists():
        names.insert(0, folder.name)
        folder = folder.parent
    name = ".".join(names)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    if len(names) > 1 or file.name == "__init__.py":  # of a package: its relative imports must work
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise LoadError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
