"""From a live target's words to what is looked at, and proof that it is the host that it must be."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pytest_celery_health.contract.model import SANDBOX, Contract, ContractError, TargetSpec
from pytest_celery_health.contract.values import did_you_mean
from pytest_celery_health.masking import HIDDEN, masked_url, secrets_in
from pytest_celery_health.observe.target import Target
from pytest_celery_health.project.info import AppInfo, AppSpec

_FAMILIES = {
    "redis": "redis",
    "rediss": "redis",
    "redis+socket": "redis",
    "sentinel": "redis",
    "amqp": "amqp",
    "amqps": "amqp",
    "pyamqp": "amqp",
    "librabbitmq": "amqp",
}
_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "amqp": 5672, "pyamqp": 5672, "amqps": 5671}
_TLS = ("rediss", "amqps")
_SCHEMES = (
    *_FAMILIES,
    *("sqs", "memory", "filesystem", "mongodb", "kafka", "confluentkafka", "zookeeper", "consul", "etcd"),
    *("gcpubsub", "azureservicebus", "azurestoragequeues", "sqla", "sqlalchemy", "pyro", "qpid", "pgmq"),
)

#: Those of kombu for Redis, Sentinel and AMQP, and others that are often set.
_OPTIONS = (
    *("visibility_timeout", "priority_steps", "sep", "global_keyprefix", "queue_order_strategy"),
    *("unacked_key", "unacked_index_key", "unacked_mutex_key", "unacked_mutex_expire"),
    *("unacked_restore_limit", "unacked_restore_interval", "unacked_restore_throttle", "ack_emulation"),
    *("fanout_prefix", "fanout_patterns", "body_encoding", "deadletter_queue", "polling_interval"),
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"),
    *("max_connections", "health_check_interval", "retry_on_timeout", "client_name"),
    *("master_name", "min_other_sentinels", "sentinel_kwargs", "sentinel_fanout_compat"),
    *("max_retries", "interval_start", "interval_step", "interval_max", "errback", "connect_timeout"),
    *("confirm_publish", "confirm_timeout", "read_timeout", "write_timeout", "client_properties"),
    *("region", "predefined_queues", "queue_name_prefix", "wait_time_seconds"),
)

#: What kombu takes from before the `?` of a URL, and fails at behind it.
_OF_THE_HOST = {"userid", "username", "password"}
_LOCAL = "memory"
_HERE_ALONE = (
    '"memory", which lives in one process, so no worker could be seen; write the URL that the workers use, or'
    " leave the target out"
)


@dataclass(frozen=True)
class Host:
    """Where one broker of a URL is; `port` is None where neither the URL nor its scheme says."""

    name: str
    port: int | None = None
    socket: bool = False

    def __str__(self) -> str:
        return self.name

    def is_expected(self, expected: str) -> bool:
        if self.socket:
            return expected in (self.name, "localhost")
        name, port = _split(expected)
        return self.name == name and port in (None, self.port)


def hosts(url: str) -> tuple[Host, ...]:
    """Every host of `url`, a failover list joined with ";", parsed as kombu does.

    Raises ValueError, without the URL, when a host cannot be told for sure.
    """
    return tuple(_host(part.strip()) for part in url.split(";") if part.strip())


def check_host(spec: TargetSpec, url: str) -> None:
    """Raise ContractError unless every host of `url` is one that `spec` expects."""
    problem = host_problem(spec.expect_host, url)
    if problem:
        raise ContractError([f"target {spec.name}: {problem}; nothing was looked at"])


def host_problem(expected: tuple[str, ...], url: str) -> str:
    """What is wrong with the hosts of `url`, or ""."""
    try:
        found = hosts(url)
    except ValueError as exc:
        return f"its broker's URL {exc}"
    if not found:
        return "its broker's URL is empty"
    strange = [host for host in found if not any(host.is_expected(_normal(name)) for name in expected)]
    if not strange:
        return ""
    ports = any(_split(_normal(name))[1] for name in expected)
    names = [f"{host}:{host.port}" if ports and host.port else str(host) for host in strange]
    return f"its broker is {', '.join(names)}; expect_host wants {' or '.join(expected) or 'nothing'}"


def holds_password(url: str) -> bool:
    """Whether `url`, or one of a failover list, has a password in it; in doubt it has."""
    shown = masked_url(url) if "://" in url else ""
    return f":{HIDDEN}@" in shown or f"={HIDDEN}" in shown


def passwords_in(options: Mapping[str, Any], around: str = "") -> Iterator[str]:
    """The keys of `options` whose value is a password, written out."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from passwords_in(value, f"{around}{key}.")
        elif isinstance(value, str) and not value.startswith("env:") and secrets_in({key: value}):
            yield f"{around}{key}"


def options_complaints(options: Mapping[str, Any]) -> Iterator[str]:
    """Which keys of `options` are misspelt. Any other is left to the transport, which says nothing of it."""
    for key in sorted(options.keys() - _OPTIONS):
        for near in get_close_matches(key, _OPTIONS, n=1, cutoff=0.9):
            yield f"transport_options.{key} is not an option of a transport; did you mean {near}?"


def family(url: str) -> str:
    """ "redis", "amqp", or the transport's own name."""
    scheme = urlsplit(url).scheme
    return _FAMILIES.get(scheme, scheme.partition("+")[0])


def resolve(
    contract: Contract,
    name: str,
    environ: Mapping[str, str],
    app: AppInfo | None = None,
    spec: AppSpec | None = None,
) -> Target:
    """The live target `name`: its URL found, its hosts checked, its options and certificates gathered.

    `app` is what the app says of itself, None if it is not at hand. Raises ContractError with everything
    that is wrong; no password is in it.
    """
    declared = contract.targets.get(name)
    if declared is None:
        if name == SANDBOX:
            raise ContractError(["the sandbox is started, not connected to"])
        raise ContractError([undeclared(name, contract.targets)])
    problems: list[str] = []
    url = _url(declared, environ, app, problems)
    if family(url) == _LOCAL:
        problems.append(f"its broker is a URL of {_HERE_ALONE}")
    elif url and (problem := host_problem(declared.expect_host, url)):
        problems.append(f"{problem}; nothing was looked at")
    own = _from_environ(declared.transport_options, environ, problems)
    tls = _tls(declared, url, contract.path.parent, app, problems)
    if problems:
        raise ContractError(f"target {name}: {problem}" for problem in problems)
    return Target(
        name=name,
        url=url,
        options={**(app.broker_transport_options if app else {}), **own},
        ssl=tls,
        login_method=app.broker_login_method if app and _same_family(app, url) else None,
        control_exchange=declared.control_exchange or (app.control_exchange if app else "celery"),
        event_exchange=app.event_exchange if app else "celeryev",
        app=app,
        spec=spec,
        env=contract.env,
    )


def undeclared(name: str, targets: Mapping[str, TargetSpec]) -> str:
    """That `name` is no target, and which are."""
    known = [SANDBOX, *targets]
    near = did_you_mean(name, known) or f"; targets: {', '.join(known)}"
    return f'target "{name}" is not declared{near}'


def _url(spec: TargetSpec, environ: Mapping[str, str], app: AppInfo | None, problems: list[str]) -> str:
    if spec.broker == "app":
        if app is None:
            problems.append('broker is "app", and the app is not known')
            return ""
        return app.broker_url
    variable = spec.broker.removeprefix("env:")
    if variable == spec.broker:
        return spec.broker
    url = environ.get(variable, "").strip()
    if not url:
        state = "empty" if variable in environ else "not set"
        problems.append(f'broker is "{spec.broker}", and the variable {variable} is {state}; set it to a URL')
    elif "://" not in url:
        problems.append(f'the variable {variable} holds no URL: there is no "://" in it')
        return ""
    return url


def _from_environ(
    options: Mapping[str, Any], environ: Mapping[str, str], problems: list[str]
) -> dict[str, Any]:
    done: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping):
            done[key] = _from_environ(value, environ, problems)
        elif isinstance(value, str) and value.startswith("env:"):
            variable = value.removeprefix("env:")
            if variable not in environ:
                problems.append(f'transport_options has {key} = "{value}", and {variable} is not set')
            done[key] = environ.get(variable, "")
        else:
            done[key] = value
    return done


def _tls(spec: TargetSpec, url: str, folder: Path, app: AppInfo | None, problems: list[str]) -> Any:
    files = {key: str(folder / path) for key in ("ca", "cert", "key") if (path := getattr(spec, key))}
    for key, path in files.items():
        if not Path(path).is_file():
            problems.append(f"{key} is {path}, which is no file")
    said = bool(files) or spec.verify is not None
    if not url:
        return None
    if said and "ssl_" in url.partition("?")[2]:
        keys = ", ".join([*files, *(["verify"] if spec.verify is not None else [])])
        problems.append(f"its broker's URL has ssl_ options and the contract has {keys}; keep one of the two")
    if not said:
        if spec.broker == "app" or (app is not None and app.broker_use_ssl and _same_family(app, url)):
            return app.broker_use_ssl if app else None
        if urlsplit(url).scheme not in _TLS or "ssl_" in url.partition("?")[2]:
            return None
    verify = spec.verify is not False
    mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if family(url) == "redis":
        names = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
        return {
            "ssl_cert_reqs": mode,
            "ssl_check_hostname": verify,
            **{names[key]: path for key, path in files.items()},
        }
    if family(url) == "amqp":
        names = {"ca": "ca_certs", "cert": "certfile", "key": "keyfile"}
        # kombu puts the broker's name where it finds None, and py-amqp compares names only if there is one.
        own: dict[str, Any] = {"cert_reqs": mode, **({"server_hostname": None} if verify else {})}
        return {**own, **{names[key]: path for key, path in files.items()}}
    problems.append(f"ca, cert, key and verify are not known for {family(url)}; use its transport_options")
    return None


def _same_family(app: AppInfo, url: str) -> bool:
    return family(app.broker_url) == family(url)


def _host(url: str) -> Host:
    scheme, found, rest = url.partition("://")
    scheme = scheme.lower() if found else ""
    try:
        # kombu reads what follows the scheme with HTTP's rules, whatever the scheme.
        parts = urlsplit(f"http://{rest if found else url}")
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"has a port {_of(exc)}; percent-encode /, ?, # and : in its password") from None
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError("has an @ after its host; percent-encode it (%40), and /, ? and # in its password")
    if twice := sorted(_OF_THE_HOST & dict(parse_qsl(parts.query, keep_blank_values=True)).keys()):
        raise ValueError(
            f"has {' and '.join(twice)} behind its ?; kombu wants SCHEME://USER:PASSWORD@HOST:PORT/"
        )
    if scheme.endswith("socket") or scheme == "unix":
        return Host(unquote(parts.path), socket=True)
    name = unquote(parts.hostname or "").lower().rstrip(".")
    if not name:
        name = "localhost" if scheme in _FAMILIES or not found else scheme
    return Host(name, port or _PORTS.get(scheme))


def _of(port: ValueError) -> str:
    """What is wrong with it, by urllib's words, which may quote a password."""
    return "that is out of range (0 to 65535)" if "out of range" in str(port) else "that is no number"


def _normal(expected: str) -> str:
    return expected if expected.startswith("/") else expected.strip().lower().rstrip(".")


def _split(expected: str) -> tuple[str, int | None]:
    if expected.count(":") > 1 and not expected.startswith("["):
        return expected, None
    parts = urlsplit(f"//{expected}")
    return (parts.hostname or "").rstrip("."), parts.port


def broker_complaint(broker: str) -> str:
    """What is wrong with the words of `broker`, or "". No password is in it."""
    if holds_password(broker):
        return 'broker holds a password; keep the URL in a variable and write broker = "env:NAME"'
    if broker == "app":
        return ""
    if broker.startswith("env:"):
        variable = broker.removeprefix("env:")
        right = variable and not any(sign in variable for sign in "=$ {}")
        return "" if right else f'broker is "{broker}"; write "env:NAME", NAME being a variable'
    if "://" not in broker:
        wanted = 'wanted "app", "env:NAME", or a URL such as "redis://host:6379/0"'
        near = did_you_mean(broker, ["app"], quoted=True)
        shown = re.fullmatch(r"[\w.-]+(:\d+)?", broker)  # what is no plain word may hold a password
        return f'broker is "{broker}"; {wanted}{near}' if shown else f"broker is no URL; {wanted}"
    scheme = urlsplit(broker).scheme
    near = did_you_mean(scheme, _SCHEMES)
    if near and scheme.partition("+")[0] not in _SCHEMES:
        return f'broker is a URL of "{scheme}", which is no transport{near}'
    if family(broker) == _LOCAL:
        return f"broker is a URL of {_HERE_ALONE}"
    try:
        hosts(broker)
    except ValueError as exc:
        return f"broker is a URL that {exc}"
    return ""


def host_complaints(expected: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with the words of `expect_host`."""
    for name in expected:
        if "://" in name or "@" in name:
            yield "expect_host is a URL; write its host alone"
            continue
        try:
            host, _ = _split(_normal(name))
        except ValueError as exc:
            yield f'expect_host is "{name}", with a port {_of(exc)}'
            continue
        if not name.startswith("/") and (not host or any(sign in name for sign in "*?, ;")):
            yield f'expect_host is "{name}", which is no host; write every host out'
