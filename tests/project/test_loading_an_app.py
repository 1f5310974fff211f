"""An app is found wherever `celery -A` finds it, and in a few more places; what is wrong is said first."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pytest_celery_health.project.describe import describe, start_describing
from pytest_celery_health.project.info import AppSpec, ProjectError
from tests.support.timing import as_far_as, wait_until

Write = Callable[..., AppSpec]

APP = """
    from celery import Celery
    app = Celery("shop", broker="redis://localhost:1/0")
"""
PACKAGE = {
    "shop/__init__.py": "",
    "shop/celery.py": APP,
    "shop/tasks.py": "from celery import shared_task\n@shared_task\ndef charge(order_id): pass\n",
}


def _failure(spec: AppSpec, timeout: float = 10) -> str:
    with pytest.raises(ProjectError) as caught:
        describe(spec, timeout=timeout)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["shop", "shop.celery", "shop.celery:app", "shop.celery.app", "shop.celery:holder.app"]
)
def test_every_spelling_of_celerys_own_grammar(project: Write, name: str) -> None:
    holder = "\nclass holder:\n    app = app\n"
    spec = project(name, {**PACKAGE, "shop/celery.py": APP.replace("\n    ", "\n") + holder})
    assert describe(spec, timeout=10).name == "shop"


def test_a_plain_module(project: Write) -> None:
    assert describe(project("worker", {"worker.py": APP}), timeout=10).broker_url == "redis://localhost:1/0"


def test_a_factory(project: Write) -> None:
    made = """
        from celery import Celery
        def create_app():
            return Celery("made", set_as_current=False)
    """
    assert describe(project("shop:create_app()", {"shop.py": made}), timeout=10).name == "made"


def test_a_factory_that_makes_a_flask_app(project: Write) -> None:
    made = """
        from celery import Celery
        class Flask:
            extensions = {"celery": Celery("in_flask")}
        create_app = Flask
    """
    assert describe(project("shop:create_app()", {"shop.py": made}), timeout=10).name == "in_flask"


def test_a_factory_without_its_parentheses(project: Write) -> None:
    spec = project("shop:create_app", {"shop.py": "def create_app(): ..."})
    said = 'shop:create_app is a function; a factory is written "shop:create_app()"'
    assert _failure(spec) == f"shop:create_app failed to load: {said}"


def test_shared_tasks_belong_to_an_app_that_a_factory_makes(project: Write) -> None:
    made = """
        from celery import Celery
        def create_app():
            return Celery("made", set_as_current=False, include=["shop.tasks"])
    """
    spec = project("shop.factory:create_app()", {**PACKAGE, "shop/factory.py": made})
    assert describe(spec, timeout=10).tasks == {"shop.tasks.charge"}


def test_autodiscovered_tasks_are_registered(project: Write) -> None:
    app = APP + '    app.autodiscover_tasks(["shop"])\n'
    spec = project("shop.celery", {**PACKAGE, "shop/celery.py": app})
    assert describe(spec, timeout=10).tasks == {"shop.tasks.charge"}


def test_a_django_project(project: Write) -> None:
    files = {
        "site_/__init__.py": "from site_.celery import app as celery_app\n",
        "site_/settings.py": """
            SECRET_KEY = "x"
            INSTALLED_APPS = ["orders"]
            CELERY_BROKER_URL = "redis://localhost:1/7"
            CELERY_TASK_DEFAULT_QUEUE = "orders"
        """,
        "site_/celery.py": """
            from celery import Celery
            app = Celery("site_")
            app.config_from_object("django.conf:settings", namespace="CELERY")
            app.autodiscover_tasks()
        """,
        "orders/__init__.py": "",
        "orders/models.py": """
            from django.db import models
            class Order(models.Model):
                paid = models.BooleanField(default=False)
        """,
        "orders/tasks.py": """
            from celery import shared_task
            from orders.models import Order
            @shared_task
            def charge(order_id): ...
        """,
    }
    info = describe(project("site_", files, env={"DJANGO_SETTINGS_MODULE": "site_.settings"}), timeout=20)
    assert info.tasks == {"orders.tasks.charge"}
    assert (info.broker_url, info.default_queue) == ("redis://localhost:1/7", "orders")


def test_an_app_in_a_folder_that_the_contract_adds(project: Write) -> None:
    spec = project("shop", {f"src/{name}": text for name, text in PACKAGE.items()}, path=("src",))
    assert describe(spec, timeout=10).name == "shop"


def test_a_hook_makes_the_app_of_its_target(project: Write, tmp_path: Path) -> None:
    conftest = """
        from celery import Celery
        def pytest_celery_health_app(target):
            return Celery(f"for_{target}")
    """
    hook = f"{tmp_path / 'conftest.py'}:pytest_celery_health_app"
    spec = project("", {"conftest.py": conftest}, hooks=(hook,), target="staging")
    assert describe(spec, timeout=10).name == "for_staging"


def test_a_hook_names_the_app_and_may_live_in_a_package(project: Write, tmp_path: Path) -> None:
    files = {
        **PACKAGE,
        "tests/__init__.py": "",
        "tests/names.py": 'NAME = "shop.celery"',
        "tests/conftest.py": "from .names import NAME\ndef pytest_celery_health_app():\n    return NAME\n",
    }
    hook = f"{tmp_path / 'tests/conftest.py'}:pytest_celery_health_app"
    assert describe(project("", files, hooks=(hook,)), timeout=10).name == "shop"


def test_the_first_hook_that_says_it_wins_then_the_contract(project: Write, tmp_path: Path) -> None:
    said = "def pytest_celery_health_app(target): return {!r} if target == 'staging' else None\n"
    files = {**PACKAGE, "near/conftest.py": said.format(None), "conftest.py": said.format("shop")}
    files["other.py"] = "from celery import Celery\napp = Celery('other')\n"
    hooks = tuple(
        f"{tmp_path / name}:pytest_celery_health_app" for name in ("near/conftest.py", "conftest.py")
    )
    assert describe(project("other", files, hooks=hooks, target="staging"), timeout=10).name == "shop"
    assert describe(project("other", {}, hooks=hooks), timeout=10).name == "other"
    told = f"{hooks[0]} and {hooks[1]} returned None for the target 'sandbox', not an app"
    assert _failure(project("", {}, hooks=hooks)).endswith(told)


def test_a_hook_that_wants_what_a_child_does_not_have(project: Write, tmp_path: Path) -> None:
    hook = f"{tmp_path / 'conftest.py'}:pytest_celery_health_app"
    spec = project("", {"conftest.py": "def pytest_celery_health_app(config): ..."}, hooks=(hook,))
    assert _failure(spec).endswith("takes config; a child process can tell it only target")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop.celery:ap", "shop.celery has no 'ap'; did you mean 'app'?"),
        ("shop.celery.ap", "shop.celery has no 'ap'; did you mean 'app'?"),
        ("shop:celery", "shop has no 'celery'; did you mean shop.celery?"),
        ("shop.cellery", "shop has no 'cellery'; did you mean shop.celery?"),
        ("shop.celery:thing", "shop.celery has no 'thing'; its apps are app"),
        ("shop.celery:celery", "shop.celery has no 'celery'; its apps are app"),
        ("shop.tasks", "the module shop.tasks has no Celery app"),
        ("shop.celery:Celery", "shop.celery:Celery is a type, not a Celery app"),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_one(project: Write, name: str, said: str) -> None:
    files = {**PACKAGE, "shop/tasks.py": ""}
    assert _failure(project(name, files)) == f"{name} failed to load: {said}"


def test_a_missing_module_says_where_it_was_looked_for(project: Write, tmp_path: Path) -> None:
    assert _failure(project("shopp.celery:app", PACKAGE)) == (
        "shopp.celery:app failed to load: ModuleNotFoundError: No module named 'shopp' "
        f"(looked in {tmp_path})"
    )


def test_a_failing_import_shows_the_users_own_frames(project: Write) -> None:
    files = {
        **PACKAGE,
        "shop/celery.py": "import shop.settings",
        "shop/settings.py": "import no_such_library",
    }
    assert _failure(project("shop.celery", files)).splitlines() == [
        "shop.celery failed to load: ModuleNotFoundError: No module named 'no_such_library'",
        "  at shop/celery.py:1 in <module>: import shop.settings",
        "  at shop/settings.py:1 in <module>: import no_such_library",
    ]


def test_the_users_own_attribute_error_is_not_a_missing_app(project: Write) -> None:
    said = _failure(project("shop.celery", {**PACKAGE, "shop/celery.py": "import os\nos.nothing"}))
    assert said.startswith(
        "shop.celery failed to load: AttributeError: module 'os' has no attribute 'nothing'"
    )


def test_a_task_module_that_cannot_be_imported(project: Write) -> None:
    app = APP.replace('broker="redis://localhost:1/0"', 'include=["shop.nope"]')
    said = _failure(project("shop.celery", {**PACKAGE, "shop/celery.py": app}))
    assert said.startswith("shop.celery failed to load: ModuleNotFoundError: No module named 'shop.nope'")


def test_an_app_that_exits(project: Write) -> None:
    said = _failure(project("shop", {"shop.py": "import sys\nsys.exit('no license')"}))
    assert said.startswith("shop failed to load: SystemExit: no license")


def test_an_app_whose_process_dies_leaves_its_last_words(project: Write) -> None:
    dying = "import os, sys\nprint('out of luck', file=sys.stderr)\nsys.stderr.flush()\nos._exit(7)\n"
    assert _failure(project("shop", {"shop.py": dying})).splitlines() == [
        "shop failed to load: its process exited with 7: out of luck",
    ]


@pytest.mark.parametrize("password", ["s3cret", "p/w", "p@w#rd"])
def test_a_password_does_not_show(project: Write, password: str) -> None:
    url = f"redis://:{password}@db.prod:6379/0"
    said = _failure(project("shop", {"shop.py": f"raise ValueError('cannot use {url}')"}))
    assert password not in said
    assert "redis://:***@db.prod:6379/0" in said


def test_what_the_app_prints_harms_nothing(project: Write) -> None:
    noisy = (
        APP
        + """
    import os, sys
    print("hello" * 100_000)
    print("{}", file=sys.stderr)
    os.write(1, b"raw")
    os.write(2, b"raw")
    assert sys.stdin.read() == ""
    """
    )
    assert describe(project("shop", {"shop.py": noisy}), timeout=10).name == "shop"


def test_an_app_that_hangs_is_given_up_where_it_stood(project: Write, tmp_path: Path) -> None:
    hangs = "import pathlib, time\n\npathlib.Path('hangs').touch(); time.sleep(600)\n"
    spec = project("shop", {"shop.py": hangs})
    within, said = as_far_as(tmp_path / "hangs", lambda within: _failure(spec, timeout=within), 2, 8, 32)
    assert said == f"shop did not load within {within:g} s; it was at {tmp_path / 'shop.py'}:3 in <module>"


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


def _wait_for(what: str, condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_what_a_hanging_app_started_is_gone_too(project: Write, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hanging = f"""
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "60"])
        with open({str(pids)!r}, "w") as file:
            file.write(f"{{os.getpid()}} {{child.pid}}\\n")
        time.sleep(60)
    """
    with start_describing(project("shop", {"shop.py": hanging}), timeout=30):
        _wait_for("the app never started", lambda: pids.exists() and pids.read_text().endswith("\n"))
    for pid in pids.read_text().split():
        _wait_for(f"{pid} still runs", lambda pid=pid: _gone(int(pid)))


def test_the_job_is_in_no_argument_list(project: Write) -> None:
    app = (
        APP
        + """
    from pathlib import Path
    app.main = Path("/proc/self/cmdline").read_text().replace("\\0", " ")
    """
    )
    spec = project("shop", {"shop.py": app}, env={"TOKEN": "s3cret"})
    assert describe(spec, timeout=10).name.strip().endswith("-m pytest_celery_health.project.child describe")


def test_the_contracts_variables_reach_the_app(project: Write) -> None:
    app = "import os\nfrom celery import Celery\napp = Celery(os.environ['NAME'])\n"
    assert describe(project("shop", {"shop.py": app}, env={"NAME": "by_env"}), timeout=10).name == "by_env"


def test_a_child_works_while_the_caller_goes_on(project: Write) -> None:
    with start_describing(project("shop", {"shop.py": APP}), timeout=10) as asked:
        first = asked.result()
        assert first is asked.result()
    assert first.name == "shop"


def test_a_root_that_is_relative(project: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project("shop", {"sub/shop.py": APP})
    monkeypatch.chdir(tmp_path)
    assert describe(AppSpec("shop", Path("sub")), timeout=10).name == "shop"


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    assert _failure(AppSpec("shop", tmp_path / "nowhere")).startswith(
        "shop failed to load: [Errno 2] No such file"
    )


DAEMONS = """
    import os, subprocess
    from celery import Celery

    def start(seconds):
        subprocess.Popen(["setsid", "sleep", seconds])
        if os.fork() == 0:  # a daemon: its parent ends at once
            os.setsid()
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", seconds])
            os._exit(0)

    start("{seconds}")
    {then}
    app = Celery("shop")
"""


def _sleeping(seconds: str) -> list[int]:
    return [
        each.pid for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", seconds]
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="impossible here: only Linux hands orphans over")
@pytest.mark.parametrize("then", ["", "threading.Event().wait()"], ids=["an answer", "given up"])
def test_daemons_that_an_app_starts_end_with_the_child(project: Write, then: str) -> None:
    seconds = f"1{os.getpid()}.{len(then)}"
    shop = DAEMONS.replace("import os", "import os, threading").format(seconds=seconds, then=then)
    spec = project("shop", {"shop.py": shop})
    asked = start_describing(spec, timeout=30)
    try:
        if then:
            wait_until(lambda: len(_sleeping(seconds)) == 2, within=20, what="two daemons")
        else:
            asked.result()
    finally:
        asked.close()
    assert not _sleeping(seconds)
