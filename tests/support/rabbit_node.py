"""A RabbitMQ node of the tests' own: TLS with client certificates demanded, and a second virtual host."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import trustme

from pytest_celery_health.sandbox.brokers import Launch, free_port, rabbitmq_server

USER = "celery"
PASSWORD = "s3cr3t-of-staging"
#: Beside "/", which every node has.
VHOST = "shop"


@dataclass(frozen=True)
class Certificates:
    """Files of two authorities, of which the node and its client know the first.

    The node's certificate is of `localhost`, and of no address.
    """

    ca: Path
    cert: Path
    key: Path
    stranger_ca: Path
    stranger_cert: Path
    stranger_key: Path


@dataclass(frozen=True)
class RabbitNode:
    """`plain` and `tls` are ports of 127.0.0.1."""

    plain: int
    tls: int
    certificates: Certificates

    def url(self, vhost: str = "/", *, tls: bool = False, host: str = "localhost", password: str = "") -> str:
        scheme, port = ("amqps", self.tls) if tls else ("amqp", self.plain)
        secret = quote(password or PASSWORD, safe="")
        return f"{scheme}://{USER}:{secret}@{host}:{port}/{quote(vhost, safe='')}"


@contextmanager
def rabbit_node(folder: Path) -> Iterator[RabbitNode]:
    """Start the node, which takes 10 seconds and more, and end it. `folder` is for certificates."""
    reason = rabbitmq_server.available()
    if reason:
        pytest.skip(reason)
    certificates, tls = _certificates(folder), free_port()
    home = Path(tempfile.mkdtemp(prefix="rabbit-"))  # its name is the node's, and short
    launch = rabbitmq_server.launch(home, PASSWORD)
    _configure(home, tls, certificates, folder)
    log = folder / "rabbitmq.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            launch.argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **launch.env},
            start_new_session=True,
        )
    try:
        _await(launch, process, log)
        yield RabbitNode(urlsplit(launch.url).port or 0, tls, certificates)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        shutil.rmtree(home, ignore_errors=True)


def _await(launch: Launch, process: subprocess.Popen[bytes], log: Path) -> None:
    over = time.monotonic() + 90
    while "Server startup complete" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > over:
            pytest.fail(f"rabbitmq-server did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)
    assert rabbitmq_server.answers(launch)


def _configure(home: Path, tls: int, certificates: Certificates, folder: Path) -> None:
    definitions = folder / "definitions.json"
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    vhosts = ("/", VHOST)
    definitions.write_text(
        json.dumps(
            {
                "users": [{"name": USER, "tags": "", **_hashed(PASSWORD)}],
                "vhosts": [{"name": name} for name in vhosts],
                "permissions": [{"user": USER, "vhost": name, **everything} for name in vhosts],
            }
        )
    )
    with (home / "rabbitmq.conf").open("a") as conf:
        conf.write(
            f"listeners.ssl.default = 127.0.0.1:{tls}\n"
            f"ssl_options.cacertfile = {certificates.ca}\n"
            f"ssl_options.certfile = {folder / 'node.pem'}\n"
            f"ssl_options.keyfile = {folder / 'node.key'}\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = true\n"
            f"load_definitions = {definitions}\n"
        )


def _hashed(password: str) -> dict[str, str]:
    salt = os.urandom(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    return {
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
    }


def _certificates(folder: Path) -> Certificates:
    authority, stranger = trustme.CA(), trustme.CA()
    node = authority.issue_cert("localhost")
    node.private_key_pem.write_to_path(str(folder / "node.key"))
    with (folder / "node.pem").open("wb") as chain:
        chain.writelines(blob.bytes() for blob in node.cert_chain_pems)
    files: dict[str, Path] = {}
    for prefix, of in (("", authority), ("stranger_", stranger)):
        issued = of.issue_cert("celery@shop.example")
        paths = {name: folder / f"{prefix}{name}.pem" for name in ("ca", "cert", "key")}
        of.cert_pem.write_to_path(str(paths["ca"]))
        issued.cert_chain_pems[0].write_to_path(str(paths["cert"]))
        issued.private_key_pem.write_to_path(str(paths["key"]))
        files |= {f"{prefix}{name}": path for name, path in paths.items()}
    return Certificates(**files)
