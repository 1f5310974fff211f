"""An app whose functions publish in many styles, right and wrong, and the world in which they are tried."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pytest_celery_health.checks import PublisherEnds
from pytest_celery_health.facts import Snapshot, merge
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox.publishing import Publishers
from pytest_celery_health.sandbox.spec import SandboxSpec
from pytest_celery_health.verdict import Verdict, judge

APP = """
import asyncio, json, os, threading
from concurrent.futures import ThreadPoolExecutor
from celery import Celery
from celery.exceptions import OperationalError
from kombu import Exchange, Producer, pools

app = Celery("shop", broker="redis://production.example:6379/0")
BOUNDS = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "max_retries": 0}

@app.task(name="pack")
def pack(order):
    raise AssertionError("nobody runs it")

def bounded(**more):
    options = {**app.conf.broker_transport_options, **BOUNDS, **more}
    return app.connection_for_write(connect_timeout=0.5, transport_options=options)

def plain():
    pack.delay("o1")

def not_again():
    pack.apply_async(("o1",), retry=False)

def bounded_without_result():
    with bounded() as connection:
        pack.apply_async(("o1",), connection=connection, retry=False, ignore_result=True)

def well_bounded():
    with pools.producers[bounded()].acquire(block=True, timeout=1) as producer:
        pack.apply_async(("o1",), producer=producer, retry=False)

def own_connection():
    with bounded() as connection:
        pack.apply_async(("o1",), connection=connection, retry=False)

def second_app():
    WEB.send_task("pack", ("o1",), retry=False)

WEB = Celery("web", broker="redis://production.example:6379/0", set_as_current=False)
WEB.conf.broker_transport_options = BOUNDS

async def in_a_view():
    well_bounded()

def says_nothing():
    try:
        well_bounded()
    except OperationalError:
        pass

def says_no():
    try:
        well_bounded()
    except OperationalError:
        return "", 503

def in_the_background():
    thread = threading.Thread(target=plain)
    thread.start()
    thread.join(0.2)

def later_without_a_bound():
    threading.Timer(0.3, plain).start()

def later_in_silence():
    threading.Timer(0.3, says_nothing).start()

first = []

def too_late():
    if first:
        threading.Timer(2.5, well_bounded).start()
    else:
        well_bounded()
        first.append(True)

POOL = ThreadPoolExecutor(1)

def in_a_pool():
    POOL.submit(well_bounded)

def waits_for_its_pool():
    POOL.submit(well_bounded).result()

tasks = []

async def in_a_task():
    async def later():
        await asyncio.sleep(0.1)
        says_nothing()
    tasks.append(asyncio.create_task(later()))

async def in_a_task_without_a_bound():
    async def later():
        plain()
    tasks.append(asyncio.create_task(later()))

closed = []

def once_only():
    if closed:
        raise RuntimeError("Acquire on closed pool")
    try:
        well_bounded()
    except OperationalError:
        closed.append(True)
        raise

def by_kombu():
    with bounded() as connection:
        Producer(connection).publish({"order": "o1"}, exchange=Exchange(""), routing_key="orders")

def three():
    for _ in range(3):
        well_bounded()

def leaves():
    try:
        well_bounded()
    except OperationalError:
        os._exit(7)

def again_by_itself():
    for left in (2, 1, 0):
        try:
            return well_bounded()
        except OperationalError:
            if not left:
                raise

outbox = []

def put_aside():
    outbox.append("o1")

def relay():
    while outbox:
        pack.apply_async((outbox.pop(),))

def fails():
    raise KeyError("order")
"""

#: How the app comes to keep results, where its messages are.
RESULTS = (
    'Celery("shop", broker=',
    'Celery("shop", backend="redis://production.example:6379/0", broker=',
)

Try = Callable[..., Verdict]


@pytest.fixture(scope="session")
def of_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Try]]:
    """What a row about a function of the app comes to, on a broker; with another app, if one is named."""
    made: dict[str, Publishers] = {}
    root = tmp_path_factory.mktemp("publishers")
    Path(root, "shop.py").write_text(textwrap.dedent(APP))
    Path(root, "shop_with_results.py").write_text(textwrap.dedent(APP.replace(*RESULTS)))

    def on(broker: str, app: str = "shop") -> Try:
        key = f"{broker} {app}"
        if key not in made:
            made[key] = Publishers(SandboxSpec(broker=broker), AppSpec(f"{app}:app", root))

        def attempt(function: str, *when: str, **fields: object) -> Verdict:
            fields.setdefault("answers_within", 1.5)
            check = PublisherEnds(f"{app}:{function}", when=when, **fields)  # type: ignore[arg-type]
            (ask,) = merge(check.asks())
            return judge(check, Snapshot(made[key].published(ask)))  # type: ignore[arg-type]

        return attempt

    yield on
    for each in made.values():
        with closing(each):
            pass


@pytest.fixture
def attempt(of_broker: Callable[[str], Try]) -> Try:
    """On the best broker at hand."""
    return of_broker("")
