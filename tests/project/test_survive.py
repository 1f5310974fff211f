"""Handlers that are really called with what is hard on them: in real child processes."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Callable, Mapping

import pytest

from pytest_celery_health import AskTrials, HandlersSurvive, Snapshot, Trial, Trials, Verdict, judge
from pytest_celery_health.project.describe import start_trials
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import SandboxSpec
from pytest_celery_health.sandbox.brokerless import Brokerless
from tests.project.conftest import APP, REPO, SHOP, World, Write, write

Judged = Callable[..., Verdict]

TASKS = """
    from shop.celery import app

    @app.task
    def charge(): ...
    @app.task(max_retries=5)
    def ship(): ...
"""
HEAD = """
    import http.client, json, logging, os, requests, sys, time, threading, urllib.request
    from celery import signals
    from shop.tasks import charge, ship

    SLACK = "https://hooks.slack.com/services/T0/B0/X"
    logger = logging.getLogger("shop")
"""
FILES = {**SHOP, "shop/tasks.py": TASKS}


def module(code: str) -> str:
    return textwrap.dedent(HEAD) + textwrap.dedent(code)


def try_all(spec: AppSpec, check: HandlersSurvive, world: Brokerless) -> Trials:
    (ask,) = check.asks()
    assert isinstance(ask, AskTrials)
    return start_trials(spec, ask, timeout=60, sealed=world.seal, environ=world.environ).result()


@pytest.fixture
def tried(world: World) -> Callable[..., Trials]:
    """Has the handlers of an app called in a world without a broker."""
    return lambda spec, check, **sandbox: try_all(spec, check, world(spec, **sandbox))


@pytest.fixture
def shop(project: Write, tried: Callable[..., Trials]) -> Judged:
    """The verdict on a shop whose module of handlers holds this code."""

    def build(
        code: str,
        files: Mapping[str, str] | None = None,
        sandbox: Mapping[str, object] | None = None,
        **fields: object,
    ) -> Verdict:
        check = HandlersSurvive(**fields)  # type: ignore[arg-type]
        spec = project("shop.celery:app", {**FILES, "shop/signals.py": module(code), **(files or {})})
        return judge(check, Snapshot(tried(spec, check, **(sandbox or {}))))

    return build


def lines(verdict: Verdict) -> list[str]:
    """What is bad, without the handlers' modules and places."""
    return [bare(finding.line()) for finding in verdict.bad]


def bare(line: str) -> str:
    return re.sub(r" \(shop/\w+\.py:\d+\)|shop\.\w+:", "", line)


RED = [
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(task_id, args, kwargs, **_):
                logger.error("failed", extra={"args": args, "kwargs": kwargs})
            """,
        "raised KeyError: \"Attempt to overwrite 'args' in LogRecord\" for task_failure; "
        "wanted no error (Celery swallows it)",
        id="logs args",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(exception, **_):
                logger.error(f"failed: {exception}")
            """,
        "raised RuntimeError: the text of the task's exception cannot be had for task_failure "
        "with an exception whose __str__ raises; "
        "wanted no error (Celery swallows it)",
        id="text that raises",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(traceback, **_):
                logger.error("failed at line %s", traceback.tb_lineno)
            """,
        "raised AttributeError: 'str' object has no attribute 'tb_lineno' for task_failure "
        "with a traceback that is text; wanted no error (Celery swallows it)",
        id="traceback as text",
    ),
    pytest.param(
        """
            @signals.task_retry.connect
            def alert(einfo, **_):
                logger.error("failed: %s", einfo.traceback)
            """,
        "raised AttributeError: 'NoneType' object has no attribute 'traceback' for task_retry "
        "with no einfo; wanted no error (Celery swallows it)",
        id="no einfo",
    ),
    pytest.param(
        """
            @signals.task_prerun.connect
            def alert(args, **_):
                logger.info("%d bytes", len(json.dumps(args)))
            """,
        "raised TypeError: Object of type datetime is not JSON serializable for task_prerun "
        "with arguments that JSON and pickle cannot hold; "
        "wanted no error (Celery swallows it)",
        id="JSON",
    ),
    pytest.param(
        """
            @signals.task_postrun.connect
            def alert(state, **_):
                logger.info(state.lower())
            """,
        "raised AttributeError: 'NoneType' object has no attribute 'lower' for task_postrun "
        "with state None; wanted no error (Celery swallows it)",
        id="no state",
    ),
    pytest.param(
        """
            @signals.task_unknown.connect
            def alert(message, **_):
                sys.exit("no such task")
            """,
        "raised SystemExit: no such task for task_unknown; wanted no error (Celery swallows it)",
        id="SystemExit",
    ),
    pytest.param(
        """
            @signals.task_revoked.connect
            def alert(request, expired, **_):
                if expired:
                    os._exit(3)
                logger.info("revoked %s", request.id)
            """,
        "ended its process, which exited with 3, for task_revoked with an expired task; "
        "wanted no error (Celery swallows it)",
        id="the end of the process",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(sender, **_):
                try:
                    requests.post(SLACK, json={"text": sender.name}).raise_for_status()
                except requests.RequestException:
                    logger.error("alert lost")
            """,
        "posts without a timeout to hooks.slack.com for task_failure when hooks.slack.com hangs; "
        "wanted an end within 2 s "
        "(a server that hangs keeps it, and what it runs in, for ever)",
        id="no timeout",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(sender, **_):
                try:
                    urllib.request.urlopen(SLACK, b"{}")
                except OSError:
                    logger.error("alert lost")
            """,
        "posts without a timeout to hooks.slack.com for task_failure when hooks.slack.com hangs; "
        "wanted an end within 2 s "
        "(a server that hangs keeps it, and what it runs in, for ever)",
        id="no timeout, urllib",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(sender, **_):
                for _ in range(3):
                    try:
                        return requests.post(SLACK, timeout=30).raise_for_status()
                    except requests.RequestException as error:
                        logger.error("alert lost: %s", type(error))
            """,
        "takes 90 s for task_failure when hooks.slack.com hangs; wanted an end within 2 s",
        id="timeout and retries",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(sender, **_):
                import httpx
                try:
                    httpx.post(SLACK).raise_for_status()
                except httpx.HTTPError as error:
                    logger.error("alert lost: %s", type(error))
            """,
        "takes 5 s for task_failure when hooks.slack.com hangs; wanted an end within 2 s",
        id="httpx' own timeout, imported late",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(sender, **_):
                try:
                    requests.post(SLACK, timeout=1)
                except requests.RequestException as error:
                    logger.error("alert lost: %s", type(error))
            """,
        "loses its alert without a word for task_failure when hooks.slack.com answers 404, 429 or 500; "
        "wanted a log record of WARNING or above, or another server",
        id="status unread",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(sender, **_):
                try:
                    requests.post(SLACK, timeout=1).raise_for_status()
                except requests.RequestException:
                    logger.info("alert lost")
            """,
        "loses its alert without a word for task_failure when hooks.slack.com refuses, hangs, "
        "answers 404, 429 or 500; "
        "wanted a log record of WARNING or above, or another server",
        id="INFO is no word",
    ),
    pytest.param(
        """
            def post(text):
                try:
                    requests.post(SLACK, json=text, timeout=1)
                except requests.RequestException:
                    pass
            @signals.task_failure.connect
            def alert(sender, **_):
                threading.Thread(target=post, args=(sender.name,), daemon=True).start()
            """,
        "loses its alert without a word for task_failure when hooks.slack.com refuses, hangs, "
        "answers 404, 429 or 500; "
        "wanted a log record of WARNING or above, or another server",
        id="in a thread",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(sender, kwargs, **_):
                try:
                    requests.post(SLACK, json=str(kwargs), timeout=1).raise_for_status()
                except requests.RequestException:
                    logger.error("alert lost")
            """,
        "sends password, secret and token in clear to hooks.slack.com for task_failure "
        "with secrets in its arguments; wanted secrets hidden",
        id="secrets sent",
    ),
    pytest.param(
        """
            @signals.task_received.connect
            def alert(request, **_):
                hidden = {**request.kwargs, "password": "***", "account": "***", "token": "***"}
                logger.info("received", extra={"about": hidden})
            """,
        "logs secret in clear for task_received with secrets in its arguments; wanted secrets hidden",
        id="secrets logged",
    ),
    pytest.param(
        """
            @signals.before_task_publish.connect
            def alert(sender, body, **_):
                logger.info("%s is sent: %s", sender, body)
            """,
        "logs password, secret and token in clear for before_task_publish "
        "with secrets in its arguments; wanted secrets hidden",
        id="secrets published",
    ),
    pytest.param(
        """
            @signals.task_retry.connect
            def alert(sender, request, **_):
                logger.info("retry %s", request.retries)
                if request.retries >= 5:
                    logger.error("the last retry")
            """,
        "logs ERROR for task_retry only from retries 5 on; "
        "wanted at most 4, as no task gets further (the first retry is number 0)",
        id="threshold",
    ),
    pytest.param(
        """
            @signals.task_retry.connect(sender=charge)
            def alert(sender, request, **_):
                if request.retries >= 3:
                    logger.error("the last retry")
            """,
        "logs ERROR for task_retry only from retries 3 on; "
        "wanted at most 2, as no task gets further (the first retry is number 0)",
        id="threshold for one task",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            async def alert(sender, **_):
                logger.error("failed")
            """,
        "never ran: it is async def, and nobody awaits it for task_failure; "
        "wanted no error (Celery swallows it)",
        id="async def",
    ),
]
GREEN = [
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(sender, **_):
                if sender.name == "shop.tasks.ship":
                    logger.error("failed")
            """,
        id="for one task",
    ),
    pytest.param(
        """
            @signals.task_retry.connect
            def alert(sender, request, **_):
                if request.retries == 2:
                    logger.error("third time")
            """,
        id="reachable threshold",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(sender, **_):
                for url in (SLACK, "https://backup.example/alerts"):
                    try:
                        return requests.post(url, timeout=0.5).raise_for_status()
                    except requests.RequestException:
                        continue
            """,
        id="another server",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(sender, **_):
                try:
                    taken = json.load(urllib.request.urlopen(SLACK, b"{}", timeout=1))["ok"]
                except OSError:
                    taken = False
                if not taken:
                    logger.warning("Slack did not take it")
            """,
        id="reads the answer",
    ),
    pytest.param(
        """
            from contextvars import ContextVar
            bound = ContextVar("bound")
            @signals.task_prerun.connect
            def bind(task_id, **_):
                bound.set(task_id)
            """,
        id="an effect that nobody sees",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def again(sender, task_id, **_):
                ship.apply_async(countdown=10)
            """,
        id="sends a task",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def bounded(sender, **_):
                import asyncio, httpx
                async def post():
                    async with httpx.AsyncClient(timeout=0.2) as client:
                        (await client.post(SLACK)).raise_for_status()
                try:
                    asyncio.run(post())
                except httpx.HTTPError as error:
                    logger.error("alert lost: %s", type(error))
            """,
        id="an async client",
    ),
]
UNKNOWN = [
    pytest.param(
        """
            import socket
            @signals.task_failure.connect
            def alert(**_):
                socket.create_connection(("db.internal", 5432), timeout=1)
            """,
        "raised Refused for task_failure, and db.internal:5432 is not to be reached; "
        "allow it in [tool.celery-health.sandbox]",
        id="a database elsewhere",
    ),
    pytest.param(
        """
            import socket
            class OperationalError(Exception): ...
            @signals.task_failure.connect
            def alert(**_):
                try:
                    socket.create_connection(("127.0.0.1", 5432), timeout=1)
                except OSError:
                    raise OperationalError("no connection") from None
            """,
        "raised OperationalError: no connection for task_failure, and 127.0.0.1:5432 "
        "is not to be reached; allow it in [tool.celery-health.sandbox]",
        id="a database here",
    ),
    pytest.param(
        """
            class OperationalError(Exception): ...
            @signals.task_failure.connect
            def alert(**_):
                raise OperationalError("no such table: failures")
            """,
        "raised OperationalError: no such table: failures for task_failure, "
        "and what it wants to reach is not here",
        id="a driver's error",
    ),
    pytest.param(
        """
            @signals.task_failure.connect
            def alert(**_):
                try:
                    answer = requests.post(SLACK, timeout=1)
                    answer.raise_for_status()
                except requests.RequestException as error:
                    logger.error("alert lost: %s", type(error))
                else:
                    logger.info("sent as %s", answer.json()["ts"])
            """,
        "raised KeyError: 'ts' for task_failure, and hooks.slack.com may answer "
        'otherwise than {"ok": true, "status": "success", "message": "ok", "id": "1"}',
        id="an answer of its own",
    ),
    pytest.param(
        """
            @signals.task_failure.connect(sender="shop.tasks.charge")
            def alert(**_): ...
            """,
        "is connected for a sender that never sends the signal",
        id="a sender that never sends",
    ),
]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Verdict]:
    """The verdict on each of RED, GREEN and UNKNOWN, by its code. A module of one shop has each."""
    root = tmp_path_factory.mktemp("shop")
    codes = [str(case.values[0]) for case in (*RED, *GREEN, *UNKNOWN)]
    names = [f"shop.case{number}" for number in range(len(codes))]
    app = APP.replace('"shop.signals"', ", ".join(f'"{name}"' for name in names))
    files = {**FILES, "shop/celery.py": app}
    files |= {f"{name.replace('.', '/')}.py": module(code) for name, code in zip(names, codes, strict=True)}
    spec = write(root, "shop.celery:app", files)
    check = HandlersSurvive()
    world = Brokerless(SandboxSpec(), spec)
    try:
        seen = try_all(spec, check, world)
    finally:
        world.close()

    def of(code: str) -> Verdict:
        name = f"{names[codes.index(code)]}:"
        own = tuple(trial for trial in seen.seen if trial.name.startswith(name))
        return judge(check, Snapshot(Trials(own, seen.tasks)))

    return of


@pytest.mark.parametrize(("code", "message"), RED)
def test_handler_that_does_not_survive(verdicts: Callable[[str], Verdict], code: str, message: str) -> None:
    assert lines(verdicts(code)) == [f"alert {message}"]


@pytest.mark.slow
@pytest.mark.parametrize("code", GREEN)
def test_handler_that_survives(verdicts: Callable[[str], Verdict], code: str) -> None:
    found = verdicts(code)
    assert found.healthy, str(found)
    assert not found.warnings


@pytest.mark.parametrize(("code", "message"), UNKNOWN)
def test_what_cannot_be_told(verdicts: Callable[[str], Verdict], code: str, message: str) -> None:
    """An error for want of a service that is not here is not called the handler's mistake."""
    found = verdicts(code)
    assert found.unknown
    assert bare(found.message()) == f"cannot tell: alert: {message}"


@pytest.mark.slow
def test_a_task_that_says_its_own_max_retries(shop: Judged) -> None:
    """The task's attribute is not the last word."""
    alert = """
        @signals.task_retry.connect
        def alert(sender, request, **_):
            if request.retries >= 7:
                logger.error("many retries")
    """
    tasks = """
        from shop.celery import app
        {options}
        def charge(self):
            raise self.retry({arguments})
        @app.task
        def ship(): ...
    """

    def found(options: str, arguments: str) -> Verdict:
        return shop(alert, {"shop/tasks.py": tasks.format(options=options, arguments=arguments)})

    assert found("@app.task(bind=True)", "").unhealthy
    assert found("@app.task(bind=True)", "max_retries=10").healthy
    assert found("@app.task(bind=True, max_retries=None)", "").healthy
    auto = "@app.task(bind=True, autoretry_for=(OSError,), retry_kwargs={'max_retries': 9})"
    assert found(auto, "").healthy


def test_a_handler_of_no_task_is_warned_of(shop: Judged) -> None:
    found = shop(
        """
        @signals.task_failure.connect
        def page(sender, **_):
            if sender.name in ("charge", "refund"):
                requests.post(SLACK, timeout=1)
        """
    )
    assert found.healthy
    assert [finding.line() for finding in found.warnings] == [
        "page does nothing for any of the app's 2 tasks: shop/signals.py:12 never runs; "
        "wanted an effect for one (it would for one named charge)"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "hang",
    [
        pytest.param("while True: pass", id="loop"),
        pytest.param("import ctypes; ctypes.CDLL(None).sleep(1000)", id="C, without the GIL"),
        pytest.param("import ctypes; ctypes.PyDLL(None).sleep(1000)", id="C, with the GIL"),
        pytest.param("threading.Event().wait()", id="wait"),
        pytest.param("import subprocess; subprocess.run(['sleep', '1000'])", id="another process"),
    ],
)
def test_a_handler_that_hangs_is_given_up(shop: Judged, hang: str) -> None:
    """At once all others are called, and the run goes on."""
    began = time.monotonic()
    found = shop(
        f"""
        @signals.task_failure.connect
        def alert(**_):
            {hang}
        @signals.task_failure.connect
        def log(**_):
            logger.error("failed")
        """,
        within=0.5,
    )
    assert lines(found) == [
        "alert did not end for task_failure; it was at shop/signals.py:11; wanted an end within 0.5 s"
    ]
    assert time.monotonic() - began < 15


def test_what_a_first_call_imports_is_no_hang(shop: Judged) -> None:
    """On a machine under load a client takes seconds."""
    found = shop(
        """
        @signals.task_failure.connect
        def alert(**_):
            from shop.client import httpx
            try:
                httpx.post(SLACK, timeout=0.1).raise_for_status()
            except httpx.HTTPError as error:
                logger.error("alert lost: %s", type(error))
        """,
        files={"shop/client.py": "import httpx, time\ntime.sleep(2)"},
        within=1,
    )
    assert found.healthy, str(found)


def test_handlers_by_name(shop: Judged) -> None:
    found = shop(
        """
        @signals.task_failure.connect
        def alert(**_): raise ValueError("alert")
        @signals.task_failure.connect
        def log(**_): raise ValueError("log")
        """,
        handlers=("shop.signals:log", "shop.signals:alarm"),
    )
    assert [finding.subject for finding in found.bad] == ["log"]
    assert [finding.line() for finding in found.blind] == [
        "cannot tell: shop.signals:alarm: is connected to no signal about a task "
        "(did you mean shop.signals:alert?)"
    ]


def test_each_handler_is_called_alone(shop: Judged) -> None:
    """What one does is not laid at another's door, and what it keeps is kept for its own next call only."""
    found = shop(
        """
        alerted = []
        @signals.task_failure.connect
        def alert(task_id, sender, **_):
            if task_id in alerted:
                raise RuntimeError("twice")
            alerted.append(task_id)
            logger.error("failed")
        @signals.task_failure.connect
        def quiet(**_):
            if alerted:
                raise RuntimeError("not alone")
        """
    )
    assert found.healthy, str(found)


def test_threads_of_a_pools_process(shop: Judged) -> None:
    """A fork has none of its parent's threads; worker_process_init starts them again."""
    found = shop(
        """
        import queue
        waiting = queue.Queue()
        def work():
            while True:
                text = waiting.get()
                try:
                    requests.post(SLACK, json=text, timeout=1).raise_for_status()
                except requests.RequestException as error:
                    logger.warning("alert lost: %s", type(error))
        @signals.worker_process_init.connect
        def begin(**_):
            threading.Thread(target=work, daemon=True).start()
        @signals.task_failure.connect
        def alert(sender, **_):
            waiting.put(sender.name)
        """
    )
    assert found.healthy, str(found)
    assert found.table[1][3] == "hooks.slack.com, log WARNING"


def test_nothing_leaves_and_no_real_timeout_is_waited_for(shop: Judged) -> None:
    began = time.monotonic()
    found = shop(
        """
        @signals.task_failure.connect
        def alert(sender, **_):
            try:
                requests.post("http://127.0.0.1:1/alert", timeout=500).raise_for_status()
            except requests.RequestException as error:
                logger.error("alert lost: %s", type(error))
        """,
        within="10min",
    )
    assert found.healthy, str(found)
    assert time.monotonic() - began < 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["handlers_sdk", "handlers_httphandler", "handlers_httpx"])
def test_correct_handlers_of_other_kinds(name: str, tried: Callable[..., Trials]) -> None:
    """No false alarm, and they were seen at work."""
    check = HandlersSurvive()
    seen = tried(AppSpec("app", REPO / "tests" / "projects" / name), check)
    found = judge(check, Snapshot(seen))
    assert found.healthy, str(found)
    assert not found.warnings
    assert any("alerts.example" in call.does for trial in seen.seen for call in trial.calls)


def test_the_shop_in_time(tried: Callable[..., Trials]) -> None:
    check = HandlersSurvive()
    began = time.monotonic()
    env = {"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/a/b/c", "PAGERDUTY_ROUTING_KEY": "k"}
    seen = tried(AppSpec("shop.celery:app", REPO / "examples" / "shop", env=env), check)
    assert time.monotonic() - began < 5
    assert judge(check, Snapshot(seen)).healthy
    (alert,) = (trial for trial in seen.seen if trial.name == "shop.signals:alert_on_failure")
    assert isinstance(alert, Trial)
    assert {host for call in alert.calls for host in call.failed} == {
        "hooks.slack.com",
        "events.pagerduty.com",
    }


def test_a_retry_without_its_reason_is_a_warning(shop: Judged) -> None:
    found = shop("""
        @signals.task_retry.connect
        def log(sender, request, reason, **_):
            logger.warning("%s retries", sender.name)
    """)
    assert found.healthy
    told = [bare(warning.line()) for warning in found.warnings]
    assert told == [
        "log raised TypeError: log() missing 1 required positional argument: 'reason' for task_retry"
        " with no reason, as of a task that its worker cancels; wanted no error"
    ]
