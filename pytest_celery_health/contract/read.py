"""Reading a contract: all of it, so that every mistake is told at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, fields
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from textwrap import indent
from typing import Any, get_type_hints

from pytest_celery_health.checks import CHECKS, Check
from pytest_celery_health.contract.begin import FIRST_TABLE
from pytest_celery_health.contract.find import misspelt
from pytest_celery_health.contract.locate import KeyPath, bare, line_of, line_of_key, locate, placed, shown
from pytest_celery_health.contract.model import SANDBOX, Contract, ContractError, Row, Silence, TargetSpec
from pytest_celery_health.contract.modules import no_module
from pytest_celery_health.contract.targets import (
    broker_complaint,
    holds_password,
    host_complaints,
    host_problem,
    hosts,
    options_complaints,
    passwords_in,
    undeclared,
)
from pytest_celery_health.contract.third_party import COMMON, UnusableError, check_class, field_types
from pytest_celery_health.contract.values import complaints, describe, did_you_mean, fit
from pytest_celery_health.contract.words import app_complaint, blame, name_complaint
from pytest_celery_health.durations import Duration, seconds
from pytest_celery_health.masking import mask, secrets_in
from pytest_celery_health.sandbox.brokers import NAMES
from pytest_celery_health.sandbox.seal import endpoint_complaint
from pytest_celery_health.sandbox.spec import POOLS, SandboxSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_ROOT: KeyPath = ("tool", "celery-health")
_TOP = {
    "app": str,
    "env": Mapping[str, str],
    "deadline": Duration,
    "sandbox": Mapping[str, Any],
    "target": Mapping[str, Mapping[str, Any]],
    "check": Mapping[str, Mapping[str, Any]],
}
_SANDBOX = {**get_type_hints(SandboxSpec), "start_within": Duration}
_TARGET = {
    **{key: hint for key, hint in get_type_hints(TargetSpec).items() if key != "name"},
    "expect_host": tuple[str, ...] | str,
    "deadline": Duration,
}
_ROW = {
    "use": str,
    **{key: hint for key, hint in get_type_hints(Row).items() if key in COMMON},
    "on": tuple[str, ...] | str,
}


def read(
    path: Path,
    *,
    today: date | None = None,
    app_from_hook: bool = False,
    app_path: Sequence[str] | None = None,
) -> Contract:
    """The contract in `path`, a pyproject.toml or any TOML file with `[tool.celery-health]`.

    `today` decides which silences are over. Where `app` is missing, or its module is neither in the file's
    folder nor in those of `app_path`, if these are given, this is told beside other mistakes unless
    `app_from_hook`; alone, it is `Contract.without_hook`, as a hook may be found later. The folder goes onto
    `sys.path`, and stays there, if a row's check is the project's own. Raises ContractError.
    """
    return _Reader(path, today or date.today(), app_from_hook, app_path).contract()


def mistaken(contract: Contract, table: str, key: str, complaints: Iterable[str]) -> ContractError:
    """What only the app could show of a contract that was read: complaints about a key of a table.

    `table` is "" for the contract's own keys.
    """
    lines = locate(contract.path.read_text(encoding="utf-8")) if contract.path.exists() else {}
    at = (*_ROOT, table) if table else _ROOT
    line = line_of_key(lines, at, key)
    return ContractError(placed(contract.path, line, at, f"{key}: {each}") for each in complaints)


class _Reader:
    def __init__(self, path: Path, today: date, app_from_hook: bool, app_path: Sequence[str] | None) -> None:
        self.path = path.absolute()
        self.today = today
        self.app_from_hook = app_from_hook
        self.app_path = app_path
        self.shown = shown(self.path)
        self.lines: Mapping[KeyPath, int] = {}
        self.problems: dict[str, int] = {}
        self.meant: set[KeyPath] = set()
        self.secrets: tuple[str, ...] = ()

    def contract(self) -> Contract:
        top = self._table()
        done = self._keys((), top, _TOP, discreet={"env"}, noun="[tool.celery-health]")
        app = done.get("app", "")
        if "app" in done and (complaint := app_complaint(app)):
            self._complain((), f'app is "{app}", {complaint}', "app")
        sandbox = self._sandbox(_tables(top.get("sandbox")))
        targets = {
            name: spec
            for name, table in _tables(top.get("target")).items()
            if isinstance(table, dict) and (spec := self._target(name, table))
        }
        declared = {**dict.fromkeys(_tables(top.get("target"))), **targets}
        rows = [
            row
            for name, table in _tables(top.get("check")).items()
            if isinstance(table, dict) and (row := self._row(name, table, declared))
        ]
        without_hook = self._no_module(app, done.get("env", {})) if app else ""
        if "app" not in top and ("app",) not in self.meant:
            without_hook = _app_wanted("sandbox" in top, targets, rows)
        deadline = self._positive((), "deadline", done.get("deadline"))
        self._raise(without_hook)
        contract = Contract(
            path=self.path,
            app=app,
            env=done.get("env", {}),
            deadline=5.0 if deadline is None else deadline,
            sandbox=sandbox or SandboxSpec(),
            targets=targets,
            rows=tuple(rows),
            without_hook=without_hook and self._placed((), without_hook, "app")[0],
        )
        for row in rows:
            try:
                contract.completed(row.check)
            except ValueError as exc:
                key, _, _ = str(exc).partition(" ")
                self._complain(("check", row.name), str(exc), key)
        self._raise(without_hook)
        return contract

    def _table(self) -> dict[str, Any]:
        """`[tool.celery-health]`, or ContractError: without it there is nothing else to say."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            raise ContractError([f"{self.shown} does not exist"]) from None
        except OSError as exc:
            raise ContractError([f"{self.shown} cannot be read: {exc.strerror or exc}"]) from None
        try:
            text = content.decode()
        except UnicodeDecodeError as exc:
            line = content.count(b"\n", 0, exc.start) + 1
            raise ContractError(
                [f"{self.shown}:{line}: not UTF-8, which TOML has to be: byte 0x{content[exc.start]:02x}"]
            ) from None
        try:
            whole = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            remedy = "; save it without a byte order mark" if text.startswith("\ufeff") else ""
            raise ContractError([mask(f"{self.shown} is not TOML: {exc}{remedy}")]) from None
        tool = whole.get("tool", {})
        table = tool.get("celery-health") if isinstance(tool, dict) else None
        if isinstance(table, dict):
            self.lines = locate(text)
            self.secrets = secrets_in(table)
            return table
        if table is not None:
            kind = describe(type(table))
            raise ContractError([f"{self.shown}: tool.celery-health is {kind}; wanted a table"])
        if near := misspelt(whole):
            raise ContractError([f"{self.shown} has [{near}]; write [tool.celery-health]"])
        begin = indent(FIRST_TABLE, "    ").rstrip()
        raise ContractError([f"{self.shown} has no [tool.celery-health]; begin with:\n\n{begin}"])

    def _sandbox(self, table: Mapping[str, Any]) -> SandboxSpec | None:
        done = self._keys(("sandbox",), table, _SANDBOX, noun="the sandbox")
        broker = done.get("broker")
        if broker and broker not in NAMES:
            near = did_you_mean(broker, NAMES) or f"; brokers: {', '.join(NAMES)}"
            self._complain(
                ("sandbox",), f'broker is "{broker}", which the sandbox does not have{near}', "broker"
            )
        if broker == "memory" and (done.get("workers", 1) or done.get("beat")):
            self._complain(
                ("sandbox",),
                'broker is "memory", which lives in one process, so no worker or beat could reach it;'
                " leave it out, or write workers = 0 and no beat",
                "broker",
            )
        if (pool := done.get("pool")) and pool not in POOLS:
            near = did_you_mean(pool, POOLS) or f"; pools: {', '.join(POOLS)}"
            self._complain(("sandbox",), f'pool is "{pool}", which Celery does not have{near}', "pool")
        for endpoint in done.get("allow", ()):
            if complaint := endpoint_complaint(endpoint):
                self._complain(("sandbox",), f"allow: {complaint}", "allow")
        for key in ("workers", "concurrency"):
            least = 0 if key == "workers" else 1
            if key in done and done[key] < least:
                self._complain(("sandbox",), f"{key} is {done[key]}; write {least} or more", key)
        if "start_within" in done:
            done["start_within"] = self._positive(("sandbox",), "start_within", done["start_within"])
        spec: SandboxSpec | None = self._built(("sandbox",), SandboxSpec, done)
        return spec

    def _target(self, name: str, table: Mapping[str, Any]) -> TargetSpec | None:
        at = ("target", name)
        if name == SANDBOX:
            self._complain(at, "the sandbox is declared as [tool.celery-health.sandbox]")
        elif complaint := name_complaint(name):
            self._complain(at, complaint)
        given = {**table}
        broker = given.get("broker")
        if isinstance(broker, str) and (complaint := broker_complaint(broker)):
            self._complain(at, complaint, "broker")
            given.pop("broker")
        done = self._keys(at, given, _TARGET, discreet={"broker", "transport_options"}, noun="a target")
        if "broker" not in table and (*at, "broker") not in self.meant:
            self._complain(at, 'broker is missing; write "env:NAME", "app", or a URL without a password')
        for key in passwords_in(done.get("transport_options", {})):
            self._complain(
                at,
                f'transport_options.{key} holds a password; keep it in a variable and write "env:NAME"',
                "transport_options",
            )
        for complaint in options_complaints(done.get("transport_options", {})):
            self._complain(at, complaint, "transport_options")
        if "key" in done and "cert" not in done:
            self._complain(at, "key is given without cert; write both", "key")
        done["expect_host"] = self._expected(at, table, done)
        if "deadline" in done:
            done["deadline"] = self._positive(at, "deadline", done["deadline"])
        return self._built(at, TargetSpec, {"name": name, **done}) if "broker" in done else None

    def _expected(self, at: KeyPath, table: Mapping[str, Any], done: Mapping[str, Any]) -> tuple[str, ...]:
        expected = done.get("expect_host", ())
        expected = (expected,) if isinstance(expected, str) else expected
        url = done.get("broker", "")
        if (*at, "expect_host") in self.meant or ("expect_host" in table and "expect_host" not in done):
            return ()
        if not any(expected):
            try:
                names = [f'"{host}"' for host in hosts(url)] if "://" in url else []
            except ValueError:
                names = []
            right = f"[{', '.join(names)}]" if len(names) > 1 else next(iter(names), '"the.host.it.must.be"')
            self._complain(
                at,
                "expect_host is missing, and without it anybody's production could be looked at;"
                f" write expect_host = {right}",
                "expect_host",
            )
            return ()
        wrong = list(host_complaints(expected))
        for complaint in wrong:
            self._complain(at, complaint, "expect_host")
        if "://" in url and not wrong and (problem := host_problem(expected, url)):
            self._complain(at, problem, "expect_host")
        return tuple(expected)

    def _row(self, name: str, table: Mapping[str, Any], declared: Mapping[str, Any]) -> Row | None:
        at = ("check", name)
        if complaint := name_complaint(name):
            self._complain(at, complaint)
        common = {key: value for key, value in table.items() if key in COMMON}
        before = len(self.problems)
        done = self._keys(at, common, _ROW, noun="a row")
        on = done.get("on")
        on = (on,) if isinstance(on, str) else on
        self._silenced(at, done.get("silence"))
        if "use" not in table:
            self._complain(at, _use_missing(name, table))
        found = self._class(at, done["use"]) if "use" in done else None
        for target in on or ():
            if target != SANDBOX and target not in declared:
                self._complain(at, f"on: {undeclared(target, declared)}", "on")
            elif target != SANDBOX and found and found.needs_sandbox:
                complaint = f"on names {target}, but {done['use']} is judged in the sandbox only"
                self._complain(at, complaint, "on")
        if on == ():
            self._complain(at, "on names no target, so nothing is judged; name one, or remove on", "on")
        check = self._check(at, found, done["use"], table) if found else None
        if check is None or len(self.problems) > before:
            return None
        del done["use"]
        return Row(name, check, **{**done, "on": on}, line=line_of(self.lines, (*_ROOT, *at)))

    def _class(self, at: KeyPath, use: str) -> type[Check] | None:
        try:
            return check_class(use, self.path.parent)
        except UnusableError as exc:
            self._complain(at, str(exc), "use")
        return None

    def _check(self, at: KeyPath, cls: type[Check], use: str, table: Mapping[str, Any]) -> Check | None:
        hints, discreet = field_types(cls), {field.name for field in fields(cls) if not field.repr}
        words = {field.name: hints[field.name] for field in fields(cls) if field.init}
        own = {key: value for key, value in table.items() if key not in COMMON}
        for key, value in own.items():
            if cls in CHECKS.values() and isinstance(value, str) and holds_password(value):
                complaint = f'{key} holds a password; keep the URL in a variable and write {key} = "env:NAME"'
                self._complain(at, complaint, key)
        done = self._keys(at, own, words, discreet=discreet, noun=use, more=COMMON)
        spoilt = own.keys() - done.keys()
        if cls.subject and cls.subject not in done:
            done.update(_subject(cls.subject, at[-1], words[cls.subject]))
        check: Check | None = self._built(at, cls, done, spoilt)
        return check

    def _silenced(self, at: KeyPath, silence: Silence | None) -> None:
        if silence is None:
            return
        if not silence.why.strip():
            self._complain(at, 'silence.why is empty; write the reason, why = "INC-812" say', "silence")
        if silence.until < self.today:
            self._complain(
                at,
                f"silence ended on {silence.until} ({silence.why}); remove it, or give it a later day",
                "silence",
            )

    def _keys(
        self,
        at: KeyPath,
        table: Mapping[str, Any],
        words: Mapping[str, Any],
        *,
        noun: str,
        discreet: Collection[str] = (),
        more: Collection[str] = (),
    ) -> dict[str, Any]:
        """The values of `table` that fit; the rest is complained about, `discreet` ones without the value."""
        done = {}
        for key, value in table.items():
            if key not in words:
                self._complain(at, _unknown(key, [*words, *more], noun), key)
                self.meant.update((*at, name) for name in get_close_matches(key, words, n=1))
                continue
            try:
                done[key] = fit(value, words[key], show=key not in discreet)
            except Exception as exc:  # noqa: BLE001 - whatever a third party's type raises is the row's mistake
                for complaint in complaints(exc, key):
                    where = complaint.split()[0]
                    self._complain(at, complaint + _missing_word(at, complaint), where)
        return done

    def _built(self, at: KeyPath, cls: Any, done: dict[str, Any], spoilt: Collection[str] = ()) -> Any:
        """The instance, or None and complaints about what it refuses and what it misses.

        `spoilt` keys have been complained about already.
        """
        needed = [field.name for field in fields(cls) if _is_required(field)]
        hints = field_types(cls)
        serving = {name: _stand_ins(at[-1], hints[name]) for name in needed}
        missing = [name for name in needed if name not in done]
        for name in missing:
            if name not in spoilt and (*at, name) not in self.meant:
                self._complain(at, f"{name} is missing; wanted {describe(hints[name])}")
        made, refused = blame(cls, done, serving, spoilt)
        for key, complaint in refused:
            self._complain(at, complaint, key)
        return made

    def _positive(self, at: KeyPath, key: str, value: Any) -> float | None:
        if value is None:
            return None
        try:
            amount = seconds(value)
        except ValueError as exc:
            self._complain(at, f"{key}: {exc}", key)
            return None
        if not amount:
            self._complain(at, f'{key} is 0, which nothing can keep; write 5 or "5s"', key)
            return None
        return amount

    def _complain(self, at: KeyPath, complaint: str, key: str = "") -> None:
        self.problems.setdefault(*self._placed(at, complaint, key))

    def _placed(self, at: KeyPath, complaint: str, key: str = "") -> tuple[str, int]:
        line = line_of_key(self.lines, (*_ROOT, *at), key)
        return placed(self.path, line, (*_ROOT, *at), mask(complaint, self.secrets)), line

    def _no_module(self, app: str, env: Mapping[str, str]) -> str:
        if self.app_path is None or app_complaint(app):
            return ""
        root = self.path.parent
        own = [str(root / each) for each in env.get("PYTHONPATH", "").split(os.pathsep) if each]
        missing = no_module(app, [str(root), *self.app_path, *own])
        return missing and f'app is "{app}", {missing}'

    def _raise(self, without_hook: str) -> None:
        """Raise what was complained about, and the complaint about `app` with it."""
        if self.problems:
            if without_hook and not self.app_from_hook:
                self._complain((), without_hook, "app")
            raise ContractError(sorted(self.problems, key=self.problems.__getitem__))


def _app_wanted(sandbox: bool, targets: Mapping[str, TargetSpec], rows: Collection[Row]) -> str:
    """Why a contract cannot be without `app`, or ""."""
    own = [name for name, spec in targets.items() if spec.broker == "app"]
    reasons = [f'target {name} has broker = "app"' for name in own]
    reasons += [f"row {row.name} runs in the sandbox" for row in rows if SANDBOX in (row.on or ())]
    reasons += [f"row {row.name} runs in the sandbox" for row in rows if row.check.needs_sandbox]
    if sandbox:
        reasons.append("the sandbox starts it")
    if rows and not targets:
        reasons.append("without a live target, rows run in the sandbox")
    return f'app is missing, and {reasons[0]}; write app = "package.module:app"' if reasons else ""


def _tables(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_required(field: Field[Any]) -> bool:
    return field.init and field.default is MISSING and field.default_factory is MISSING


def _subject(key: str, name: str, wanted: Any) -> dict[str, Any]:
    """A row's name as its check's subject, in a list where that is wanted; nothing if it fits neither."""
    for value in (name, [name]):
        with suppress(Exception):
            return {key: fit(value, wanted)}
    return {}


def _stand_ins(name: str, wanted: Any) -> list[Any]:
    """Values that may serve where a check's own is wrong, so that its other mistakes are told, too."""
    found = []
    for value in (name, [name], "package.module:name", {"log": ["raises"]}, 1):
        with suppress(Exception):
            found.append(fit(value, wanted))
    return found


def _unknown(key: str, known: list[str], noun: str) -> str:
    near = did_you_mean(key, known) or f"; keys: {', '.join(known)}"
    return f"{bare(key)} is not a key of {noun}{near}"


def _missing_word(at: KeyPath, complaint: str) -> str:
    if complaint.startswith("silence.why is missing"):
        return '; write the reason, why = "INC-812" say'
    if complaint.startswith("silence.until is missing"):
        return "; write the last day, until = 2026-12-31 say"
    name = complaint.split()[0].partition(".")[2]
    if not at and complaint.startswith(("check.", "target.")):
        kind = complaint.partition(".")[0]
        return f"; write [tool.celery-health.{kind}.NAME] and below it {name} = ..."
    return ""


def _use_missing(name: str, table: Mapping[str, Any]) -> str:
    near = get_close_matches(name, CHECKS, n=1) or get_close_matches(name.rstrip("s"), CHECKS, n=1)
    typo = get_close_matches("use", [key for key in table if key not in COMMON], n=1)
    if typo:
        return f"use is missing; is {typo[0]} meant to be it?"
    for key, value in table.items():
        if isinstance(value, dict) and "use" in value:
            right = f'[tool.celery-health.check."{name}.{key}"]'
            return f"use is missing; if the row is named {name}.{key}, write {right}"
    right = next(iter(near), "workers")
    return f'use is missing; write use = "{right}"; checks: {", ".join(CHECKS)}, or package.module:Class'
