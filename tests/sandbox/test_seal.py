"""Decoys on loopback stand for production. From a sealed process none is reached, and each is named."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_celery_health.project.describe import call, describe
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox.seal import Layer, Refusal, Seal, clean_environ, refusals
from tests.support.decoy import Decoy


@pytest.fixture
def decoy() -> Iterator[Decoy]:
    found = Decoy(socket.SOCK_STREAM)
    yield found
    found.close()


@pytest.fixture
def udp() -> Iterator[Decoy]:
    found = Decoy(socket.SOCK_DGRAM)
    yield found
    found.close()


class Sealed:
    """Runs code in a sealed Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "refused"
        self.allow: tuple[str, ...] = ()

    @property
    def seal(self) -> Seal:
        return Seal(self.allow, self.log)

    def run(self, code: str, **variables: str) -> str:
        """What the code printed."""
        script = self.folder / "user_code.py"
        script.write_text(textwrap.dedent(code))
        env = self.seal.environ({**os.environ, **variables}, role="worker")
        done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def named(self) -> set[str]:
        return {refusal.address for refusal in refusals(self.log)}


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path)


WAYS = {
    "connect": "socket.socket().connect(('127.0.0.1', {port}))",
    "connect_ex": "socket.socket().connect_ex(('127.0.0.1', {port}))",
    "create_connection": "socket.create_connection(('127.0.0.1', {port}))",
    "a non-blocking connect": "s = socket.socket(); s.setblocking(False); s.connect(('127.0.0.1', {port}))",
    "urllib": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/')",
    "requests": "import requests; requests.get('http://127.0.0.1:{port}/', timeout=5)",
    "redis-py": "import redis; redis.Redis(port={port}, host='127.0.0.1').ping()",
    "kombu": "import kombu; kombu.Connection('amqp://127.0.0.1:{port}//').connect()",
    "ssl": """
        import ssl
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.wrap_socket(socket.socket(), server_hostname="h").connect(("127.0.0.1", {port}))
    """,
    "asyncio": "import asyncio; asyncio.run(asyncio.open_connection('127.0.0.1', {port}))",
    "a thread": """
        import threading
        def work():
            try:
                socket.create_connection(('127.0.0.1', {port}))
            except OSError as error:
                seen.append(error)
        seen = []
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        raise seen[0]
    """,
    "a mapped address": "socket.socket(socket.AF_INET6).connect(('::ffff:127.0.0.1', {port}))",
}


@pytest.mark.parametrize("way", WAYS)
def test_no_tcp_connection_leaves_a_sealed_process(sealed: Sealed, decoy: Decoy, way: str) -> None:
    body = textwrap.indent(textwrap.dedent(WAYS[way].format(port=decoy.port)), "    ")
    seen = sealed.run(f"import socket\ntry:\n{body}\nexcept Exception as error:\n    print(error)\n")
    assert "the sandbox refused a connection" in seen
    assert decoy.reached() == 0
    assert sealed.named() == {decoy.endpoint}


UDP_WAYS = {
    "sendto": "s.sendto(b'x', ('127.0.0.1', {port}))",
    "sendto with flags": "s.sendto(b'x', 0, ('127.0.0.1', {port}))",
    "sendmsg": "s.sendmsg([b'x'], [], 0, ('127.0.0.1', {port}))",
    "connect": "s.connect(('127.0.0.1', {port})); s.send(b'x')",
    "syslog": "h = SysLogHandler(('127.0.0.1', {port})); h.handleError = fail; h.handle(record)",
}


@pytest.mark.parametrize("way", UDP_WAYS)
def test_no_datagram_leaves_a_sealed_process(sealed: Sealed, udp: Decoy, way: str) -> None:
    code = """
        import logging, socket
        from logging.handlers import SysLogHandler
        record = logging.makeLogRecord({"msg": "x"})
        def fail(record):
            raise
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            WAY
        except ConnectionRefusedError as error:
            print(error)
    """
    assert "the sandbox refused" in sealed.run(code.replace("WAY", UDP_WAYS[way].format(port=udp.port)))
    assert udp.reached() == 0
    assert sealed.named() == {udp.endpoint}


NAMES = {
    "getaddrinfo": "socket.getaddrinfo('db.prod.example', 5432)",
    "create_connection": "socket.create_connection(('db.prod.example', 5432))",
    "connect": "socket.socket().connect(('db.prod.example', 5432))",
    "sendto": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('db.prod.example', 5432))",
    "asyncio": "import asyncio; asyncio.run(asyncio.open_connection('db.prod.example', 5432))",
}


@pytest.mark.parametrize("way", NAMES)
def test_a_foreign_name_is_not_even_looked_up(sealed: Sealed, way: str) -> None:
    seen = sealed.run(f"import socket\ntry:\n    {NAMES[way]}\nexcept OSError as error:\n    print(error)")
    assert (
        "the sandbox refused a connection to db.prod.example:5432; "
        'allow it with allow = ["db.prod.example:5432"] in [tool.celery-health.sandbox]'
    ) in seen
    assert sealed.named() == {"db.prod.example:5432"}


@pytest.mark.parametrize("look_up", ["gethostbyname", "gethostbyname_ex", "gethostbyaddr"])
def test_a_lookup_without_a_port(sealed: Sealed, look_up: str) -> None:
    code = f"""
        import socket
        try:
            socket.{look_up}("db.prod.example")
        except socket.gaierror as error:
            print(error)
    """
    assert 'allow = ["db.prod.example:PORT"]' in sealed.run(code)
    assert sealed.named() == {"db.prod.example"}


def test_a_foreign_name_that_looks_like_our_own(sealed: Sealed) -> None:
    sealed.run(
        """
        import socket
        try:
            socket.getaddrinfo("localhost.prod.example", 80)
        except socket.gaierror:
            pass
        """
    )
    assert sealed.named() == {"localhost.prod.example:80"}


def test_a_process_that_empties_its_environment_stays_sealed(sealed: Sealed, decoy: Decoy) -> None:
    sealed.run(
        f"""
        import os, socket
        os.environ.clear()
        try:
            socket.create_connection(("127.0.0.1", {decoy.port}))
        except ConnectionRefusedError:
            pass
        """
    )
    assert decoy.reached() == 0
    assert sealed.named() == {decoy.endpoint}


def test_the_machines_own_names_may_be_looked_up(sealed: Sealed) -> None:
    sealed.run(
        """
        import http.server, socket
        socket.getaddrinfo("localhost", 80)
        socket.getaddrinfo(None, 80)
        socket.getaddrinfo("127.0.0.1", 80)
        socket.getfqdn()
        socket.gethostbyaddr("127.0.0.1")
        http.server.HTTPServer(("127.0.0.1", 0), None).server_close()
        """
    )
    assert sealed.named() == set()


def test_a_refusal_names_the_host_that_was_looked_up_and_the_users_line(sealed: Sealed, decoy: Decoy) -> None:
    sealed.run(
        f"""
        import urllib.request
        try:
            urllib.request.urlopen("http://localhost:{decoy.port}/")
        except OSError:
            pass
        """
    )
    first, *rest = refusals(sealed.log)
    assert isinstance(first, Refusal)
    assert (first.role, first.where) == ("worker", f"{sealed.folder / 'user_code.py'}:4")
    assert {each.address for each in (first, *rest)} == {f"localhost:{decoy.port}"}


def test_what_is_allowed_is_reached(sealed: Sealed, decoy: Decoy) -> None:
    sealed.allow = (decoy.endpoint,)
    code = f"""
        import asyncio, socket, urllib.request
        for host in ("127.0.0.1", "localhost"):
            s = socket.socket()
            s.connect((host, {decoy.port}))
            s.close()
            socket.create_connection((host, {decoy.port})).close()
        async def main():
            _, writer = await asyncio.open_connection("127.0.0.1", {decoy.port})
            writer.close()
        asyncio.run(main())
    """
    sealed.run(code)
    assert decoy.reached() == 5


def test_an_allowed_name_is_its_addresses_but_no_other_port(sealed: Sealed, decoy: Decoy, udp: Decoy) -> None:
    sealed.allow = (f"localhost:{decoy.port}",)
    sealed.run(
        f"""
        import socket
        socket.create_connection(("127.0.0.1", {decoy.port})).close()
        socket.create_connection(("localhost", {decoy.port})).close()
        try:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("localhost", {udp.port}))
        except ConnectionRefusedError:
            pass
        """
    )
    assert (decoy.reached(), udp.reached()) == (2, 0)
    assert sealed.named() == {f"localhost:{udp.port}"}


def test_an_allowed_host_with_any_port(sealed: Sealed, decoy: Decoy) -> None:
    sealed.allow = ("127.0.0.1:*",)
    sealed.run(f"import socket\nsocket.create_connection(('127.0.0.1', {decoy.port}))")
    assert decoy.reached() == 1


def test_listening_and_unix_sockets_are_free(sealed: Sealed) -> None:
    assert (
        sealed.run(
            """
            import selectors, socket
            server = socket.create_server(("127.0.0.1", 0))
            pair = socket.socketpair()
            pair[0].send(b"x")
            path = __file__ + ".sock"
            unix = socket.socket(socket.AF_UNIX)
            unix.bind(path)
            unix.listen()
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
            with selectors.DefaultSelector() as selector:
                selector.register(unix, selectors.EVENT_READ)
                print(len(selector.select(5)), pair[1].recv(1))
            """
        )
        == "1 b'x'\n"
    )


CHILDREN = {
    "subprocess": "import subprocess, sys; subprocess.run([sys.executable, '-c', CODE])",
    "a shell": "import os, sys; os.system(f'{sys.executable} -c \"{CODE}\"')",
    "fork": "import os\nif os.fork():\n    os.wait()\nelse:\n    exec(CODE)",
    "spawn": """
        import multiprocessing
        child = multiprocessing.get_context("spawn").Process(target=exec, args=(CODE,))
        child.start()
        child.join()
    """,
    "billiard": """
        import billiard
        child = billiard.Process(target=exec, args=(CODE,))
        child.start()
        child.join()
    """,
}


@pytest.mark.parametrize("way", CHILDREN)
def test_pythons_that_a_task_starts_are_sealed_too(sealed: Sealed, decoy: Decoy, way: str) -> None:
    code = f"import socket; socket.create_connection(('127.0.0.1', {decoy.port}))"
    body = textwrap.indent(textwrap.dedent(CHILDREN[way]), "    ")
    sealed.run(f"CODE = {code!r}\nif __name__ == '__main__':\n{body}\n")
    assert decoy.reached() == 0
    assert sealed.named() == {decoy.endpoint}


kernel = pytest.mark.skipif(
    not Seal((), Path()).layers()[1].in_force, reason="impossible here: this kernel has no TCP rules"
)


@kernel
@pytest.mark.parametrize(
    "argv",
    [
        ["curl", "-sS", "http://127.0.0.1:{port}/"],
        ["psql", "host=127.0.0.1 port={port} connect_timeout=5"],
        ["bash", "-c", "echo > /dev/tcp/127.0.0.1/{port}"],
        [sys.executable, "-S", "-c", "import socket; socket.create_connection(('127.0.0.1', {port}))"],
    ],
    ids=["curl", "psql", "bash", "python -S"],
)
def test_what_is_no_sealed_python_does_not_get_out(sealed: Sealed, decoy: Decoy, argv: list[str]) -> None:
    if shutil.which(argv[0]) is None:
        pytest.skip(f"impossible here: no {argv[0]}")
    command = [word.format(port=decoy.port) for word in argv]
    code = f"import subprocess\nprint(subprocess.run({command!r}, capture_output=True).returncode)"
    assert sealed.run(code) != "0\n"
    assert decoy.reached() == 0


@kernel
def test_the_kernel_lets_through_what_is_allowed(sealed: Sealed, decoy: Decoy) -> None:
    sealed.allow = (decoy.endpoint,)
    command = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{decoy.port}"]
    sealed.run(f"import subprocess\nsubprocess.run({command!r}, check=True)")
    assert decoy.reached() == 1


@pytest.mark.slow
def test_many_generations_of_processes(sealed: Sealed, decoy: Decoy) -> None:
    """The kernel takes 16 sets of rules a process, no more."""
    code = """
        import os, socket, subprocess, sys
        left = int(os.environ.get("LEFT", "20"))
        if left:
            os.environ["LEFT"] = str(left - 1)
            sys.exit(subprocess.run([sys.executable, __file__]).returncode)
        try:
            socket.create_connection(("127.0.0.1", PORT))
        except ConnectionRefusedError:
            print("refused")
    """
    assert sealed.run(code.replace("PORT", str(decoy.port))) == "refused\n"
    assert decoy.reached() == 0


def test_the_projects_own_sitecustomize_still_runs(sealed: Sealed, tmp_path: Path, decoy: Decoy) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text(
        "import builtins, socket\nbuiltins.own = 'ran'\n"
        f"try:\n    socket.create_connection(('127.0.0.1', {decoy.port}))\nexcept OSError:\n    pass\n"
    )
    code = "import sitecustomize; print(own, sitecustomize.__file__)"
    assert sealed.run(code, PYTHONPATH=str(own)) == f"ran {own / 'sitecustomize.py'}\n"
    assert decoy.reached() == 0


def test_a_retry_loop_does_not_fill_the_disk(sealed: Sealed, decoy: Decoy) -> None:
    sealed.run(
        f"""
        import socket
        for _ in range(1000):
            try:
                socket.create_connection(("127.0.0.1", {decoy.port}))
            except ConnectionRefusedError:
                pass
        """
    )
    assert len(refusals(sealed.log)) == 200


def test_settings_that_reach_out_when_they_are_imported(sealed: Sealed, decoy: Decoy, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import socket\nfrom celery import Celery\napp = Celery('shop')\n"
        f"def beat():\n    return 'alive'\n"
        f"try:\n    socket.create_connection(('127.0.0.1', {decoy.port}))\nexcept OSError:\n    pass\n"
    )
    spec = AppSpec("shop", tmp_path)
    assert describe(spec, timeout=10, sealed=sealed.seal).name == "shop"
    assert call(spec, "shop:beat", timeout=10, sealed=sealed.seal) == "alive"
    assert decoy.reached() == 0
    assert [(refusal.role, refusal.where) for refusal in refusals(sealed.log)] == [
        ("describe", f"{tmp_path / 'shop.py'}:7"),
        ("call", f"{tmp_path / 'shop.py'}:7"),
    ]


def test_processes_without_the_seal_are_free(decoy: Decoy) -> None:
    socket.create_connection(("127.0.0.1", decoy.port)).close()
    assert decoy.reached() == 1


def test_the_seal_is_cheap(sealed: Sealed) -> None:
    """It runs in every Python that a task starts, so it imports what the interpreter has anyway."""
    listing = "import sys; print(*sys.modules)"
    env = sealed.seal.environ(os.environ, role="worker")
    env["CELERY_HEALTH_SEAL_KERNEL"] = ""  # as a process that a sealed one started

    def modules(env: dict[str, str]) -> set[str]:
        command = [sys.executable, "-c", listing]
        return set(subprocess.check_output(command, env=env, text=True).split())

    assert modules(env) - modules(dict(os.environ)) <= {
        "__future__",
        "errno",
        "celery_health_seal",
        "sitecustomize",
    }


def test_refusals_from_many_processes_do_not_mix(sealed: Sealed, decoy: Decoy) -> None:
    sealed.run(
        f"""
        import os, socket
        pids = []
        for _ in range(4):
            pid = os.fork()
            if not pid:
                for _ in range(50):
                    try:
                        socket.create_connection(("127.0.0.1", {decoy.port}))
                    except OSError:
                        pass
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        """
    )
    found = refusals(sealed.log)
    assert len(found) == 200
    assert len({refusal.pid for refusal in found}) == 4


@pytest.mark.parametrize(
    "endpoint",
    ["localhost", "localhost:", ":5432", "::1:5432", "*:5432", "redis://h:1", "h:0", "h:99999", "h:x"],
)
def test_what_is_not_an_endpoint(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"write host:port, such as 'localhost:5432'"):
        Seal((endpoint,), Path("log"))


def test_an_ipv6_endpoint() -> None:
    assert Seal(("[::1]:5432",), Path("log")).environ({}, role="")["CELERY_HEALTH_SEAL"] == "[::1]:5432"


def test_a_wildcard_port_takes_the_kernels_layer_away_and_says_so() -> None:
    python, kernel = Seal(("127.0.0.1:*",), Path("log")).layers()
    assert python == Layer("Python")
    assert not kernel.in_force


def test_nothing_refused_is_nothing_listed(tmp_path: Path) -> None:
    assert refusals(tmp_path / "never-written") == []


def test_a_clean_environment_leads_nowhere_but_the_sandbox() -> None:
    base = {
        "HOME": "/home/me",
        "CELERY_BROKER_URL": "redis://prod",
        "CELERY_CONFIG_MODULE": "prodconfig",
        "https_proxy": "http://proxy",
        "NO_PROXY": "prod",
        "REDIS_URL": "redis://prod",
    }
    assert clean_environ(
        base, broker_url="redis://b", backend_url="redis://r", redirect_env=["REDIS_URL"]
    ) == {
        "HOME": "/home/me",
        "CELERY_BROKER_URL": "redis://b",
        "CELERY_BROKER_READ_URL": "redis://b",
        "CELERY_BROKER_WRITE_URL": "redis://b",
        "CELERY_RESULT_BACKEND": "redis://r",
        "REDIS_URL": "redis://b",
        "CELERY_HEALTH_SANDBOX": "1",
        "C_FORCE_ROOT": "1",
    }


def test_metrics_are_kept_in_files_of_the_sandbox(tmp_path: Path) -> None:
    def folder(base: dict[str, str], own: dict[str, str]) -> dict[str, str]:
        clean = clean_environ(base, broker_url="redis://b", backend_url="", own=own, private=tmp_path)
        return {name: value for name, value in clean.items() if name.lower() == "prometheus_multiproc_dir"}

    kept = str(tmp_path / "metrics")
    assert folder({"PROMETHEUS_MULTIPROC_DIR": "/run/shop"}, {}) == {"PROMETHEUS_MULTIPROC_DIR": kept}
    assert Path(kept).is_dir()
    assert folder({"prometheus_multiproc_dir": "/run/shop"}, {}) == {"prometheus_multiproc_dir": kept}
    assert folder({}, {"PROMETHEUS_MULTIPROC_DIR": "/run/shop"}) == {"PROMETHEUS_MULTIPROC_DIR": kept}
    assert folder({}, {}) == {}
