"""Whole health runs on a live RabbitMQ with TLS, client certificates and virtual hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from tests.observe.fleet import spawn, wait_for_log
from tests.plugin.conftest import Project
from tests.support.rabbit_node import PASSWORD, VHOST, RabbitNode, rabbit_node

pytestmark = pytest.mark.slow

TARGET = "--celery-health-target=staging"
CONTRACT = """
[tool.celery-health]
deadline = "5s"

[tool.celery-health.target.staging]
broker = "env:STAGING_BROKER"
expect_host = ["localhost", "127.0.0.1"]
{keys}

[tool.celery-health.check.workers]
use = "workers"
{workers}

[tool.celery-health.check.{queue}]
use = "queue"
ready_below = 5
consumers_at_least = 0
"""
UNKNOWN = "ERROR pyproject.toml::billing[[]staging[]] - cannot tell: "


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    with rabbit_node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="module")
def fleet(node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In "/" and in the other virtual host a worker each, which consumes `billing`, where tasks wait for it.

    The second has a control exchange of its own, and comes by TLS with a client's certificate.
    """
    folder = tmp_path_factory.mktemp("fleet")
    files = node.certificates
    tls = {"ca_certs": str(files.ca), "certfile": str(files.cert), "keyfile": str(files.key), "cert_reqs": 2}
    own = {"broker_use_ssl": tls, "control_exchange": "shop-control"}
    workers = []
    for url, name, conf in (
        (node.url(), "root@x", {}),
        (node.url(VHOST, tls=True), "shop@x", own),
    ):
        arguments = ["worker", "-n", name, "-l", "INFO", "-P", "solo", "-Q", "billing"]
        workers.append(spawn(folder, url, arguments, name, conf))
    for worker in workers:
        wait_for_log(worker, " ready.")
    with Celery(broker=node.url(VHOST), set_as_current=False) as app:
        for _ in range(7):
            app.send_task("fleet.nap", (0,), queue="shop-only")
    yield
    for worker in workers:
        worker.kill()


Judge = Callable[..., pytest.RunResult]


@pytest.fixture
def judged(project: Project, node: RabbitNode, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """A health run of the target with this URL; `keys` are the target's. No run shows the password."""

    def judge(
        url: str, workers: str = "", queue: str = "billing", **keys: str | Path | bool
    ) -> pytest.RunResult:
        monkeypatch.setenv("STAGING_BROKER", url)
        lines = [
            f"{key} = {str(value).lower() if value is False else repr(str(value))}"
            for key, value in keys.items()
        ]
        project.contract(CONTRACT.format(keys="\n".join(lines), workers=workers, queue=queue))
        result = project.run(TARGET, "-vv", "--tb=long")
        assert PASSWORD not in str(result.stdout) + str(result.stderr)
        return result

    return judge


@pytest.fixture
def files(node: RabbitNode) -> dict[str, Path]:
    """What the node accepts, and what shows that it is the node."""
    return {"ca": node.certificates.ca, "cert": node.certificates.cert, "key": node.certificates.key}


def test_tls_with_a_clients_certificate(
    judged: Judge, node: RabbitNode, fleet: None, files: dict[str, Path]
) -> None:
    result = judged(node.url(tls=True), 'names = ["root@x"]', **files)
    result.assert_outcomes(passed=2)
    assert result.ret == 0


def test_the_next_broker_of_a_failover_list_is_known_by_its_own_name(
    judged: Judge, node: RabbitNode, fleet: None, files: dict[str, Path]
) -> None:
    gone = node.url(tls=True, host="127.0.0.1").replace(str(node.tls), "1")
    result = judged(f"{gone};{node.url(tls=True)}", 'names = ["root@x"]', **files)
    assert result.ret == 0


def test_an_authority_that_did_not_sign_the_broker(
    judged: Judge, node: RabbitNode, files: dict[str, Path]
) -> None:
    result = judged(node.url(tls=True), **{**files, "ca": node.certificates.stranger_ca})
    assert result.ret == 6
    result.stdout.fnmatch_lines(
        [
            f"{UNKNOWN}certificate not trusted (*self*signed certificate in certificate chain) of amqps://celery:***@*"
        ]
    )


def test_no_authority_at_all(judged: Judge, node: RabbitNode) -> None:
    """The machine's own are asked, and do not know it."""
    result = judged(node.url(tls=True))
    assert result.ret == 6
    result.stdout.fnmatch_lines([f"{UNKNOWN}certificate not trusted (*"])


def test_a_host_that_the_certificate_does_not_name(
    judged: Judge, node: RabbitNode, files: dict[str, Path]
) -> None:
    result = judged(node.url(tls=True, host="127.0.0.1"), **files)
    assert result.ret == 6
    result.stdout.fnmatch_lines(
        [f"{UNKNOWN}certificate not trusted (*not valid for '127.0.0.1') of amqps://celery:***@127.0.0.1:*"]
    )


def test_verify_false_trusts_anybody(
    judged: Judge, node: RabbitNode, fleet: None, files: dict[str, Path]
) -> None:
    own = {"cert": files["cert"], "key": files["key"]}
    result = judged(node.url(tls=True, host="127.0.0.1"), 'names = ["root@x"]', verify=False, **own)
    assert result.ret == 0


def test_a_client_without_the_certificate_that_is_demanded(
    judged: Judge, node: RabbitNode, files: dict[str, Path]
) -> None:
    result = judged(node.url(tls=True), ca=files["ca"])
    assert result.ret == 6
    # Who is quicker, the broker's word or its hanging up, is not ours to say.
    result.stdout.re_match_lines(
        [
            r"ERROR pyproject.toml::billing\[staging\] - cannot tell: (client certificate wanted|"
            r"connection closed in the TLS handshake \(does it want a client certificate\?\)) by amqps://"
        ]
    )


def test_a_client_whose_certificate_is_a_strangers(
    judged: Judge, node: RabbitNode, files: dict[str, Path]
) -> None:
    theirs = {"cert": node.certificates.stranger_cert, "key": node.certificates.stranger_key}
    result = judged(node.url(tls=True), **{**files, **theirs})
    assert result.ret == 6
    result.stdout.re_match_lines(
        [
            r"ERROR pyproject.toml::billing\[staging\] - cannot tell: (client certificate refused \(.+\)|"
            r"connection closed in the TLS handshake \(does it refuse the client certificate\?\)) by amqps://"
        ]
    )


def test_a_key_of_another_certificate(judged: Judge, node: RabbitNode, files: dict[str, Path]) -> None:
    result = judged(node.url(tls=True), **{**files, "key": node.certificates.stranger_key})
    assert result.ret == 6
    result.stdout.fnmatch_lines([f"{UNKNOWN}key and cert do not belong together, for amqps://*"])


def test_a_file_that_holds_no_certificate(
    judged: Judge, node: RabbitNode, files: dict[str, Path], tmp_path: Path
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    result = judged(node.url(tls=True), **{**files, "ca": empty})
    assert result.ret == 6
    result.stdout.fnmatch_lines([f"{UNKNOWN}a file of ca, cert or key holds none (*), for amqps://*"])


def test_tls_on_the_plain_port_and_plain_on_the_tls_port(
    judged: Judge, node: RabbitNode, files: dict[str, Path]
) -> None:
    result = judged(node.url(tls=True).replace(str(node.tls), str(node.plain)), **files)
    result.stdout.fnmatch_lines([f"{UNKNOWN}no TLS spoken (*) by amqps://*"])
    result = judged(node.url().replace(str(node.plain), str(node.tls)))
    result.stdout.fnmatch_lines([f"{UNKNOWN}TLS wanted by amqp://*"])


def test_a_password_is_rejected_by_tls_too(judged: Judge, node: RabbitNode, files: dict[str, Path]) -> None:
    result = judged(node.url(tls=True, password="wrong"), **files)
    assert result.ret == 6
    result.stdout.fnmatch_lines([f"{UNKNOWN}password rejected by amqps://celery:***@localhost:*"])


def test_a_virtual_host_and_its_own_control_exchange(judged: Judge, node: RabbitNode, fleet: None) -> None:
    """Its workers and queues are seen, and those of "/" are not; and the other way round."""
    result = judged(node.url(VHOST), 'names = ["shop@x", "root@x"]', control_exchange="shop-control")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["FAILED *::workers[[]staging[]] - root@x did not answer*; wanted an answer (shop@x answered)"]
    )
    result = judged(node.url(VHOST), 'names = ["shop@x"]', control_exchange="shop-control")
    assert result.ret == 0
    result = judged(node.url(), 'names = ["root@x", "shop@x"]')
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["FAILED *::workers[[]staging[]] - shop@x did not answer*; wanted an answer (root@x answered)"]
    )
    # Of the right virtual host, but of another control exchange.
    result = judged(node.url(VHOST), 'names = ["shop@x"]')
    result.stdout.fnmatch_lines(
        ["FAILED *::workers[[]staging[]] - shop@x did not answer*; wanted an answer*"]
    )


def test_queues_are_those_of_the_virtual_host(judged: Judge, node: RabbitNode, fleet: None) -> None:
    """A backlog is seen where it is; elsewhere that queue does not even exist."""
    result = judged(node.url(VHOST), queue="shop-only", control_exchange="shop-control")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::shop-only[[]staging[]] - shop-only holds 7 ready messages; *"])
    result = judged(node.url(), queue="shop-only")
    result.stdout.fnmatch_lines(["FAILED *::shop-only[[]staging[]] - shop-only does not exist; *"])


def test_a_virtual_host_that_is_not_there(judged: Judge, node: RabbitNode) -> None:
    result = judged(node.url("shp"))
    assert result.ret == 6
    result.stdout.fnmatch_lines([f"{UNKNOWN}no vhost 'shp' on amqp://celery:***@localhost:*/shp*"])
