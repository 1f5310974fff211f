"""A RabbitMQ node of its own, from the `rabbitmq-server` on the PATH: name, ports, cookie, data and epmd.

It takes 5 to 15 seconds to start, and leaves nothing: SIGKILL ends it, its data goes with the folder.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from urllib.parse import urlsplit

from pytest_celery_health.sandbox.brokers import Launch, converse, free_port, write_private

LOCAL = ""

_USER = "celery-health"
#: What a distribution's package puts in place of RabbitMQ's own script: it would change the user.
_WRAPPER = "rabbitmq-script-wrapper"


def available() -> str:
    """ "" if RabbitMQ and Erlang are on the PATH."""
    if not _script():
        return "no rabbitmq-server on the PATH"
    return "" if shutil.which("erl") else "no erl (Erlang) on the PATH"


def _script() -> str:
    found = shutil.which("rabbitmq-server")
    if not found:
        return ""
    script = Path(found).resolve()
    if script.name == _WRAPPER:
        script = script.with_name("rabbitmq-server").resolve()
    return str(script)


def launch(folder: Path, password: str) -> Launch:
    """A node that listens on 127.0.0.1 only, with one user of its own."""
    port, distribution, epmd = free_port(), free_port(), free_port()
    config = {
        "listeners.tcp.default": f"127.0.0.1:{port}",
        "default_user": _USER,
        "default_pass": password,
        "log.console": "true",
        "log.console.level": "info",
        "log.file": "false",
        "disk_free_limit.absolute": "1MB",
    }
    write_private(folder / "rabbitmq.conf", "".join(f"{key} = {value}\n" for key, value in config.items()))
    write_private(folder / "rabbitmq-env.conf", "")  # or the machine's own would be read
    write_private(folder / "enabled_plugins", "[rabbitmq_event_exchange].\n")  # tells what to remove
    loopback = "{127,0,0,1}"
    env = {
        "HOME": str(folder),  # of the cookie
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd),
        "RABBITMQ_NODENAME": f"{folder.name}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none.config"),
        "RABBITMQ_CONFIG_FILES": str(folder / "none.d"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {loopback}",
    }
    url = f"amqp://{_USER}:{password}@127.0.0.1:{port}//"
    kept = (folder / "mnesia",)
    return Launch((_script(),), url, "rpc://", env=env, stop=signal.SIGKILL, kept=kept)


def answers(launch: Launch) -> str:
    """Name and version, from the node that bears our name."""
    said = converse(urlsplit(launch.url).port or 0, b"AMQP\x00\x00\x09\x01", b"\xce")
    if launch.env["RABBITMQ_NODENAME"].partition("@")[0].encode() not in said:
        return ""
    version = said.partition(b"versionS")[2]
    return f"rabbitmq {version[4 : 4 + int.from_bytes(version[:4], 'big')].decode()}"


def port_was_taken(log: str) -> bool:
    """Whether the log says so, of any of its three ports."""
    return "eaddrinuse" in log or "could not bind" in log.lower()
