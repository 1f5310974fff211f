"""What somebody sees who scrapes the metrics of a drill's worker, by where they are scraped."""

from __future__ import annotations

import http.client
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from pytest_celery_health.facts import Sample
from pytest_celery_health.masking import mask
from pytest_celery_health.project.describe import call
from pytest_celery_health.project.info import ProjectError
from pytest_celery_health.record.recorder import read
from pytest_celery_health.record.recording import Request
from pytest_celery_health.sandbox import Sandbox, SandboxError
from pytest_celery_health.sandbox.drills.crew import Worker
from pytest_celery_health.sandbox.seal import MULTIPROC_DIR

#: The samples of a scrape, by name.
Shown: TypeAlias = Mapping[str, list[Sample]]
#: Scrapes within so many seconds. Raises ScrapeError.
Scrape: TypeAlias = Callable[[float], Shown]

#: Bytes after which a server that goes on is cut off.
_MOST = 16_000_000
_OPEN = "application/openmetrics-text"


class ScrapeError(Exception):
    """There is nothing to scrape, or it is not what Prometheus reads. The message says why."""


def scraper(place: str, sandbox: Sandbox, worker: Worker, ports: Mapping[int, int]) -> Scrape:
    """Scrapes at `place`, worded as in a contract. Raises SandboxError where that is not possible here."""
    if find_spec("prometheus_client") is None:
        raise SandboxError(
            "prometheus_client, which reads scrapes, is not installed here; pip install prometheus-client"
        )
    kind, _, rest = place.partition(":")
    if place == "worker":
        return lambda within: _parse(_of_worker(worker, within))
    if place == "multiprocess":
        folder = sandbox.environ[MULTIPROC_DIR]
        said = (worker.ask(do="environ", name=MULTIPROC_DIR) or {}).get("value")
        if said is not None and said != folder:
            raise SandboxError(
                f"the app sets {MULTIPROC_DIR} itself, so the sandbox cannot keep its files apart; have it"
                f' leave the environment its say: os.environ.setdefault("{MULTIPROC_DIR}", ...)'
            )
        return lambda _: _parse(_of_files(folder))
    if kind == "call":
        return lambda within: _parse(_called(rest, sandbox, within))
    if kind == "push":
        return lambda _: _pushed(rest.rpartition(":")[0] or rest, worker)
    url = urlsplit(place)
    port = ports.get(url.port or 80, url.port or 80)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return lambda within: _parse(*_served(url.hostname or "", port, path, within, place))


def _served(host: str, port: int, path: str, within: float, place: str) -> tuple[str, str]:
    over = time.monotonic() + within
    connection = http.client.HTTPConnection(host, port, timeout=within)  # no proxy stands between
    try:
        connection.request("GET", path, headers={"Accept": "text/plain;version=0.0.4"})
        response = connection.getresponse()
        body = b""
        while part := response.read1(65536):  # read() would wait for more
            body += part
            if time.monotonic() > over or len(body) > _MOST:
                raise ScrapeError(f"{place} did not come to an end within {within:.0f} s")
    except ConnectionRefusedError:
        raise ScrapeError(f"nothing in the worker listens at {place}") from None
    except TimeoutError:
        raise ScrapeError(f"{place} did not answer within {within:.0f} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise ScrapeError(f"{place} does not answer: {type(error).__name__}: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise ScrapeError(f"{place} answers HTTP {response.status}")
    return body.decode(errors="replace"), response.headers.get("Content-Type", "")


def _of_worker(worker: Worker, within: float) -> str:
    said = worker.ask(patience=within, do="scrape")
    if said is None:
        raise ScrapeError("the worker's main process does not answer")
    if "error" in said:
        raise ScrapeError(f"the scrape of the worker's main process failed: {mask(said['error'])}")
    return str(said["text"])


def _of_files(folder: str) -> str:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call,unused-ignore]
    try:
        return generate_latest(registry).decode()
    except Exception as error:  # noqa: BLE001 - a process may have only begun its file
        raise ScrapeError(
            f"the files in {MULTIPROC_DIR} cannot be read: {type(error).__name__}: {error}"
        ) from None


def _called(function: str, sandbox: Sandbox, within: float) -> str:
    target = sandbox.target
    assert target.spec is not None
    try:
        said = call(target.spec, function, timeout=within, sealed=sandbox.seal, environ=sandbox.environ)
    except ProjectError as error:
        raise ScrapeError(str(error)) from None
    if not isinstance(said, str):
        raise ScrapeError(f"{function} returns a {type(said).__name__}, not the text of a scrape")
    return said


def _parse(text: str, kind: str = "") -> Shown:
    from prometheus_client import parser
    from prometheus_client.openmetrics import parser as openmetrics

    reader: Any = openmetrics if kind.startswith(_OPEN) else parser
    shown: dict[str, list[Sample]] = {}
    try:
        for family in reader.text_string_to_metric_families(text):
            for name, labels, value, *_ in family.samples:
                shown.setdefault(name, []).append(Sample(labels, float(value)))
    except Exception as error:  # noqa: BLE001 - the parser raises what it comes across
        raise ScrapeError(f"it is no text that Prometheus reads: {error}") from None
    return shown


# A Pushgateway, as its documentation has it.

_Group: TypeAlias = tuple[tuple[str, str], ...]


def _pushed(host: str, worker: Worker) -> Shown:
    groups: dict[_Group, dict[str, list[Sample]]] = {}
    for request in read(worker.records).requests_to(host):
        group = _group(request)
        if group is None or request.status is None or request.status >= 400:
            continue
        if request.method == "DELETE":
            groups.pop(group, None)
            continue
        pushed: dict[str, list[Sample]] = {}
        for name, samples in _parse(request.body, _content_type(request)).items():
            pushed[name] = [Sample({**each.labels, **dict(group)}, each.value) for each in samples]
        pushed["push_time_seconds"] = [Sample(dict(group), request.at)]
        kept = groups.get(group, {}) if request.method == "POST" else {}
        groups[group] = {**kept, **pushed}
    shown: dict[str, list[Sample]] = {}
    for held in groups.values():
        for name, samples in held.items():
            shown.setdefault(name, []).extend(samples)
    return shown


def _group(request: Request) -> _Group | None:
    """The grouping key in a path such as /metrics/job/NAME/instance/w1."""
    if request.method not in ("PUT", "POST", "DELETE"):
        return None
    first, _, rest = urlsplit(request.url).path.partition("/metrics/")
    parts = rest.split("/")
    if not rest or len(parts) % 2 or first.strip("/"):
        return None
    return tuple(_labels(zip(parts[::2], parts[1::2], strict=True)))


def _labels(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, value in pairs:
        plain, at, _ = name.partition("@base64")
        if at:
            yield plain, urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode(errors="replace")
        else:
            yield name, unquote(value)


def _content_type(request: Request) -> str:
    return next((value for name, value in request.headers.items() if name.lower() == "content-type"), "")
