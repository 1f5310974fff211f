"""Who listens to Celery's signals once an app has started as its worker does: in real child processes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pytest_celery_health import Handler, Handlers, HandlersConnected, Snapshot, Verdict, judge
from pytest_celery_health.project.describe import call, start_handlers
from pytest_celery_health.project.info import AppSpec, ProjectError
from pytest_celery_health.sandbox import SandboxError, SandboxSpec
from pytest_celery_health.sandbox.brokerless import Brokerless
from tests.project.conftest import APP, REPO, SHOP, World, Write

Listed = Callable[..., Handlers]

TASKS = """
    from celery import shared_task
    from shop.celery import app

    @app.task
    def charge(): ...
    @shared_task
    def ship(): ...
"""
HEAD = """
    from functools import partial, wraps
    from celery import signals
    from shop.tasks import charge, ship

"""
FILES = {**SHOP, "shop/tasks.py": TASKS}


@pytest.fixture
def listed(world: World) -> Listed:
    """Starts an app's worker in a world without a broker, and lists the handlers."""

    def start(spec: AppSpec, **sandbox: object) -> Handlers:
        own = world(spec, **sandbox)
        return start_handlers(spec, timeout=30, sealed=own.seal, environ=own.environ).result()

    return start


@pytest.fixture
def shop(project: Write, listed: Listed) -> Callable[..., Handlers]:
    """A shop whose module of handlers holds this code."""

    def build(code: str, files: Mapping[str, str] | None = None, **spec: object) -> Handlers:
        signals = textwrap.dedent(HEAD) + textwrap.dedent(code)
        more = files or {}
        return listed(project("shop.celery:app", {**FILES, "shop/signals.py": signals, **more}, **spec))

    return build


def judged(seen: Handlers, **fields: object) -> Verdict:
    return judge(HandlersConnected(**fields), Snapshot(seen))  # type: ignore[arg-type]


def own(seen: Handlers) -> list[Handler]:
    return [handler for handler in seen.seen if handler.own]


@pytest.mark.parametrize(
    ("code", "messages"),
    [
        pytest.param(
            """
            def register():
                @signals.task_failure.connect
                def alert(sender, **kw): ...
            register()
            """,
            [
                "register.<locals>.alert was collected, as it is connected weakly to task_failure "
                "(shop/signals.py:8); "
                "wanted connected (connect it with weak=False, or define it at module level)"
            ],
            id="local function",
        ),
        pytest.param(
            "signals.task_failure.connect(lambda **kw: None)",
            [
                "<lambda> was collected, as it is connected weakly to task_failure (shop/signals.py:6); "
                "wanted connected (connect it with weak=False, or define it at module level)"
            ],
            id="lambda",
        ),
        pytest.param(
            """
            def alert(channel, **kw): ...
            signals.task_failure.connect(partial(alert, "slack"))
            """,
            [
                "alert was collected, as it is connected weakly to task_failure (shop/signals.py:8); "
                "wanted connected (connect it with weak=False, or define it at module level)"
            ],
            id="partial",
        ),
        pytest.param(
            """
            class Alerts:
                def send(self, **kw): ...
            signals.task_failure.connect(Alerts().send)
            """,
            [
                "Alerts.send was collected, as it is connected weakly to task_failure (shop/signals.py:9); "
                "wanted connected (connect it with weak=False, or keep its object)"
            ],
            id="method of a temporary object",
        ),
        pytest.param(
            """
            class Alerts:
                def __init__(self):
                    self.me = self  # only a collection finds out
                    signals.task_failure.connect(self.send, sender=self)
                def send(self, **kw): ...
            Alerts()
            """,
            [
                "Alerts.send was collected, as it is connected weakly to task_failure (shop/signals.py:10); "
                "wanted connected (connect it with weak=False, or keep its object)",
                "Alerts.send is never called: connected to task_failure for an object that is gone"
                " which never sends it "
                "(shop/signals.py:10); wanted the task itself",
            ],
            id="method of an object in a cycle",
        ),
        pytest.param(
            """
            @signals.task_failure.connect(sender="shop.tasks.charge")
            def alert(sender, **kw): ...
            """,
            [
                'alert is never called: connected to task_failure for "shop.tasks.charge", a text,'
                " which never sends it "
                "(shop/signals.py:7); wanted the task itself"
            ],
            id="a task's name as the sender",
        ),
        pytest.param(
            """
            @signals.before_task_publish.connect(sender=charge)
            def publish(sender, **kw): ...
            @signals.worker_init.connect(sender="w1@host")
            def begin(sender, **kw): ...
            @signals.task_failure.connect(sender=charge.__class__)
            def alert(sender, **kw): ...
            """,
            [
                "publish is never called: connected to before_task_publish for shop.tasks.charge, a task, "
                "which never sends it (shop/signals.py:7); wanted the task's name",
                'begin is never called: connected to worker_init for "w1@host", a text, which never sends it '
                "(shop/signals.py:9); wanted no sender, as the worker sends it",
                "alert is never called: connected to task_failure for charge, a class, which never sends it "
                "(shop/signals.py:11); wanted the task itself",
            ],
            id="other senders that never send",
        ),
        pytest.param(
            """
            from celery import Celery
            other = Celery("other", set_as_current=False)
            @other.task(name="shop.tasks.charge")
            def twin(): ...
            @other.task(name="other.charge", shared=False)
            def foreign(): ...
            @signals.task_failure.connect(sender=twin)
            @signals.task_retry.connect(sender=foreign)
            def alert(sender, **kw): ...
            """,
            [
                "alert is never called: connected to task_failure for shop.tasks.charge, another app's task, "
                "which never sends it (shop/signals.py:13); wanted the task itself"
            ],
            id="a task of this name in another app",
        ),
        pytest.param(
            """
            @signals.task_failure.connect
            def alert(sender, **kw): ...
            signals.task_failure.connect(alert, sender=charge)
            """,
            [
                "alert is connected twice to task_failure: for any sender at shop/signals.py:7 "
                "and for shop.tasks.charge at shop/signals.py:9; wanted once"
            ],
            id="for all senders and for one",
        ),
        pytest.param(
            """
            @signals.task_failure.connect(dispatch_uid="alert")
            def one(sender, **kw): ...
            @signals.task_failure.connect(dispatch_uid="alert")
            def other(sender, **kw): ...
            """,
            [
                'other is not connected to task_failure: its dispatch_uid "alert" is another handler\'s '
                "(shop/signals.py:9); wanted connected (give it a dispatch_uid of its own)"
            ],
            id="another handler's dispatch_uid",
        ),
        pytest.param(
            """
            @signals.task_retry.connect
            def alert(sender, task_id, retries, request, **kw): ...
            """,
            [
                "alert needs task_id and retries, which task_retry never sends (shop/signals.py:7); "
                "wanted sender, request, reason or einfo"
            ],
            id="parameters that are never sent",
        ),
        pytest.param(
            """
            @signals.task_failure.connect
            def alert(sender, /, **kw): ...
            """,
            [
                "alert takes sender by position only (shop/signals.py:7); "
                "wanted keywords, as signals pass nothing else"
            ],
            id="positional only",
        ),
        pytest.param(
            """
            @signals.task_failure.connect
            async def alert(sender, **kw): ...
            @signals.task_failure.connect
            def page(sender, **kw):
                yield
            """,
            [
                "alert is an async def, so task_failure calls it and its body never runs "
                "(shop/signals.py:7); wanted a plain function",
                "page is a generator, so task_failure calls it and its body never runs (shop/signals.py:9); "
                "wanted a plain function",
            ],
            id="async def and generator",
        ),
        pytest.param(
            """
            @signals.task_failure.connect(retry=True)
            def alert(sender, **kw): ...
            """,
            [
                "alert has retry=True, connected to task_failure (shop/signals.py:7); wanted retry=False "
                "(while it fails it is called again and again, and nothing else runs there)"
            ],
            id="retry",
        ),
    ],
)
def test_a_mistake_is_found_in_the_code(
    shop: Callable[..., Handlers], code: str, messages: list[str]
) -> None:
    found = judged(shop(code))
    assert [finding.line() for finding in found.bad] == messages


@pytest.mark.parametrize(
    ("code", "states"),
    [
        pytest.param(
            """
            class Client:  # as the SDKs of error trackers do it
                def __init__(self):
                    signals.task_failure.connect(self.capture, weak=False)
                    signals.task_retry.connect(self.capture)
                def capture(self, sender=None, exception=None, **kw): ...
            client = Client()
            """,
            ["strongly", "weakly"],
            id="an object that is kept",
        ),
        pytest.param(
            """
            import logging.handlers
            handler = logging.handlers.HTTPHandler("logs.example", "/")
            def forward(signal, sender, **kw):
                handler.emit(logging.makeLogRecord({}))
            for each in (signals.task_failure, signals.task_retry, signals.task_unknown):
                each.connect(forward, dispatch_uid="forward")
            """,
            ["weakly"] * 3,
            id="one function for several signals",
        ),
        pytest.param(
            """
            def to(channel):
                def alert(sender, **kw): ...
                return alert
            for channel in ("slack", "mail"):
                signals.task_failure.connect(to(channel), weak=False)
            """,
            ["strongly"] * 2,
            id="closures of one code",
        ),
        pytest.param(
            """
            for channel in ("slack", "mail"):
                signals.task_failure.connect(lambda channel=channel, **kw: None, weak=False)
            """,
            ["strongly"] * 2,
            id="lambdas of a loop",
        ),
        pytest.param(
            """
            def with_client(function):
                @wraps(function)
                def called(**kw):
                    return function(client=None, **kw)
                return called
            @signals.task_failure.connect
            @with_client
            def alert(client, sender, **kw): ...
            """,
            ["weakly"],
            id="a decorator that supplies a parameter",
        ),
        pytest.param(
            """
            @signals.task_failure.connect(sender=charge)
            @signals.task_failure.connect(sender=ship)
            def alert(sender, exception, **kw): ...
            @signals.after_task_publish.connect(sender="shop.tasks.charge")
            def sent(sender, headers, **kw): ...
            @signals.celeryd_init.connect(sender="w1@host")
            def begin(sender, instance, conf, **kw): ...
            """,
            ["weakly"] * 4,
            id="senders that send",
        ),
        pytest.param(
            """
            @signals.task_prerun.connect
            def once(sender, **kw): ...
            signals.task_prerun.disconnect(once)
            del once
            def again(sender, **kw): ...
            signals.task_failure.connect(again)
            signals.task_failure.connect(again)
            """,
            ["disconnected", "weakly"],
            id="disconnected in time, and connected again",
        ),
    ],
)
def test_handlers_that_are_right_raise_no_alarm(
    shop: Callable[..., Handlers], code: str, states: list[str]
) -> None:
    seen = shop(code)
    assert judged(seen).healthy, str(judged(seen))
    held = ["strongly" if not handler.weak else "weakly" for handler in own(seen)]
    found = zip(own(seen), held, strict=True)
    assert [held if handler.state == "connected" else handler.state for handler, held in found] == states


def test_a_file_that_is_imported_by_two_names(project: Write, listed: Listed) -> None:
    """With the folder of a package on the path beside its parent, each of its modules has two names."""
    code = """
        from celery import signals
        @signals.task_failure.connect{options}
        def alert(sender, **kw): ...
    """
    app = APP.replace("shop.signals", "alerts").replace("shop.tasks", "shop.alerts")

    def found(options: str) -> Verdict:
        files = {"shop/__init__.py": "", "shop/app.py": app, "shop/alerts.py": code.format(options=options)}
        return judged(listed(project("shop.app:app", files, path=("shop",))))

    assert [finding.line() for finding in found("").bad] == [
        "alert is connected twice to task_failure, as shop.alerts:alert and as alerts:alert "
        "(alerts.py:3); wanted once (import its module by one name only)"
    ]
    assert found("(dispatch_uid='alert')").healthy


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ("task_failure:shop.signals:alert", "1 handler connected to 1 signal"),
        (
            "task_failure:shop.alerts:alert",
            "alert is not connected to task_failure: shop.alerts is never imported; wanted connected "
            "(did you mean shop.signals:alert?)",
        ),
        (
            "task_unknown:shop.signals:alert",
            "alert is not connected to task_unknown but to task_failure (shop/signals.py:6); "
            "wanted connected",
        ),
    ],
)
def test_an_expected_handler(shop: Callable[..., Handlers], expected: str, message: str) -> None:
    seen = shop("@signals.task_failure.connect\ndef alert(sender, **kw): ...\n", {"shop/alerts.py": ""})
    assert judged(seen, expected=(expected,)).message() == message


def test_what_a_worker_connects_while_it_starts(shop: Callable[..., Handlers]) -> None:
    """In its main process, in a process of its pool, and in boot steps; not what it connects once ready."""
    seen = shop(
        """
        import sys
        from celery import bootsteps
        from shop.celery import app

        def main(sender, **kw): ...
        def pool(sender, **kw): ...
        def step(sender, **kw): ...
        def ready(sender, **kw): ...

        @signals.celeryd_init.connect
        def begin(sender, instance, **kw):
            signals.task_failure.connect(main)
        @signals.worker_init.connect
        def init(sender, **kw):
            signals.task_retry.connect(main)
            signals.worker_shutdown.connect(main, sender=sender)
        @signals.worker_process_init.connect
        def process(sender, **kw):
            assert sys.argv[:2] == ["celery", "worker"]
            signals.task_failure.connect(pool)
        @signals.worker_ready.connect
        def on_ready(sender, **kw):
            signals.task_failure.connect(ready)

        class Step(bootsteps.StartStopStep):
            def __init__(self, parent, **options):
                signals.task_unknown.connect(step)
        app.steps["worker"].add(Step)
        """
    )
    there = [(handler.signal, handler.name.partition(":")[2]) for handler in own(seen)]
    assert set(there[4:]) == {
        ("task_failure", "main"),
        ("task_retry", "main"),
        ("worker_shutdown", "main"),
        ("task_failure", "pool"),
        ("task_unknown", "step"),
    }
    assert judged(seen).healthy


def test_what_is_listed_is_what_celery_calls(project: Write, listed: Listed) -> None:
    code = """
        def register():
            @signals.task_failure.connect
            def lost(**kw):
                called.append("lost")
        called = []
        register()
        @signals.task_failure.connect
        def module(**kw):
            called.append("module")
        @signals.task_failure.connect(sender="shop.tasks.charge")
        def text(**kw):
            called.append("text")
        @signals.task_failure.connect(sender=charge)
        def for_task(**kw):
            called.append("for_task")
        def fire():
            signals.task_failure.send(sender=charge._get_current_object())
            return called
    """
    signals = textwrap.dedent(HEAD) + textwrap.dedent(code)
    spec = project("shop.celery:app", {**FILES, "shop/signals.py": signals})
    bad = {finding.subject for finding in judged(listed(spec)).bad}
    assert call(spec, "shop.signals:fire", timeout=20) == ["module", "for_task"]
    assert bad == {"register.<locals>.lost", "text"}


def test_handlers_of_installed_packages_are_not_the_projects_own(shop: Callable[..., Handlers]) -> None:
    package = {
        "lib/site-packages/acme.py": """
            from celery import signals
            def report(sender, **kw): ...
            def install():
                signals.task_failure.connect(lambda **kw: None)
                signals.task_retry.connect(report)
        """
    }
    seen = shop("import acme\nacme.install()\n", package, path=("lib/site-packages",))
    assert [(handler.name, handler.where, handler.state, handler.own) for handler in seen.seen] == [
        ("acme:install.<locals>.<lambda>", "acme.py:5", "collected", False),
        ("acme:report", "acme.py:6", "connected", False),
    ]
    assert judged(seen).message() == "cannot tell: handlers: the app connects none of its own"
    assert judged(seen, expected=("task_retry:acme:report",)).healthy


def test_an_installed_packages_handler_that_the_project_connects(shop: Callable[..., Handlers]) -> None:
    package = {"lib/site-packages/acme.py": "async def report(sender, **kw): ...\n"}
    code = "import acme\nsignals.task_failure.connect(acme.report)\n"
    seen = shop(code, package, path=("lib/site-packages",))
    assert judged(seen).message() == (
        "report is an async def, so task_failure calls it and its body never runs (shop/signals.py:7); "
        "wanted a plain function"
    )


@pytest.mark.parametrize("root", ["tests/projects/django", "tests/projects/leaky"])
def test_what_celery_itself_connects_for_django_is_not_judged(
    root: str, listed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DECOY_REDIS", "DECOY_POSTGRES", "DECOY_HTTP", "DECOY_UDP"):
        monkeypatch.setenv(name, "127.0.0.1:1")
    monkeypatch.setenv("DECOY_SQLITE", str(tmp_path / "decoy.sqlite3"))
    app, module = ("mysite", "mysite") if root.endswith("django") else ("leaky.celery:app", "leaky")
    spec = AppSpec(app, REPO / root, env={"DJANGO_SETTINGS_MODULE": f"{module}.settings"})
    seen = listed(spec)
    fixups = [handler for handler in seen.seen if handler.name.startswith("celery.fixups.django:")]
    assert {"import_modules", "worker_init", "task_prerun"} <= {handler.signal for handler in fixups}
    assert not any(handler.own for handler in fixups)
    assert not judged(seen).unhealthy


@pytest.mark.parametrize("root", ["examples/shop", "tests/projects/guide"])
def test_the_shop_and_its_twin(root: str, listed: Listed) -> None:
    """The twin's handlers are connected and called; what they then do is wrong."""
    found = judged(listed(AppSpec("shop.celery:app", REPO / root)))
    assert found.healthy, str(found)


def test_a_worker_that_cannot_be_made(shop: Callable[..., Handlers]) -> None:
    code = """
        from celery import bootsteps
        from shop.celery import app
        class Step(bootsteps.StartStopStep):
            def __init__(self, parent, **options):
                raise RuntimeError("no licence")
        app.steps["worker"].add(Step)
    """
    with pytest.raises(ProjectError) as caught:
        shop(code)
    first, *rest = str(caught.value).splitlines()
    assert first == "a worker of shop.celery:app failed: RuntimeError: no licence"
    assert rest[-1].strip().startswith("at shop/signals.py:11 in __init__")


def test_nothing_leaves_the_machine(project: Write) -> None:
    """The project's own handlers of a worker's start run, whatever the target is."""
    code = """
        import os, socket
        def reach(address):
            try:
                socket.create_connection(address, timeout=1)
            except OSError as error:
                raise RuntimeError(os.environ["QUEUE"]) from error
        @signals.worker_init.connect
        def announce(sender, **kw):
            reach(("hooks.slack.com", 443))
        @signals.worker_process_init.connect
        def warm_up(sender, **kw):
            reach((os.environ["QUEUE"].split("/")[2].split(":")[0], 6379))
    """
    signals = textwrap.dedent(HEAD) + textwrap.dedent(code)
    spec = project(
        "shop.celery:app", {**FILES, "shop/signals.py": signals}, env={"QUEUE": "redis://prod:6379/0"}
    )
    world = Brokerless(SandboxSpec(redirect_env=("QUEUE",)), spec)
    try:
        seen = start_handlers(spec, timeout=30, sealed=world.seal, environ=world.environ).result()
        assert judged(seen).healthy
        assert [(refusal.address, refusal.role) for refusal in world.refusals()] == [
            ("hooks.slack.com:443", "handlers"),
            ("no-broker-is-started.invalid:6379", "handlers"),
        ]
    finally:
        world.close()
    assert world.refusals() == []


def test_a_wrong_endpoint_in_allow(project: Write) -> None:
    with pytest.raises(SandboxError, match="allow: 'postgres' is not an endpoint"):
        Brokerless(SandboxSpec(allow=("postgres",)), project("shop", {"shop.py": ""}))
