"""On which line of a TOML file something is: its parser does not tell."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KeyPath = tuple[str, ...]


def locate(text: str) -> Mapping[KeyPath, int]:
    """The line of every table and key of `text`, which must be valid TOML.

    The shortest run of lines that parses is one statement, so no grammar is written down here.
    """
    found: dict[KeyPath, int] = {}
    table: KeyPath = ()
    begin, statement = 1, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not statement:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            begin = number
        elif not any(sign in line for sign in "]}\"'"):
            statement += line + "\n"
            continue
        statement += line + "\n"
        try:
            content = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if statement.lstrip().startswith("["):
            table = ()
            _note(content, (), begin, found)
            while content:
                key, value = next(iter(content.items()))
                table += (key,)
                content = value[0] if isinstance(value, list) else value
        else:
            _note(content, table, begin, found)
        statement = ""
    return found


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of `path`, or of the nearest thing around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def line_of_key(lines: Mapping[KeyPath, int], table: KeyPath, key: str) -> int:
    """The line of a key, or of a part of it ("key[0].part"), in a table."""
    inside = key.partition("[")[0].rstrip(":").split(".") if key else []
    return line_of(lines, (*table, *inside))


def placed(path: Path, line: int, table: KeyPath, complaint: str) -> str:
    """A complaint with its place in the contract, as a reader in this folder finds it."""
    return f"{shown(path)}:{line}: [{'.'.join(map(bare, table))}] {complaint}"


def shown(path: Path) -> str:
    """`path` as a reader in this folder knows it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def bare(key: str) -> str:
    """A key as TOML has it, quoted where it must be."""
    if key.replace("-", "a").replace("_", "a").isalnum() and key.isascii():
        return key
    return f'"{key}"' if key.isprintable() else json.dumps(key)


def _note(content: Mapping[str, Any], around: KeyPath, line: int, found: dict[KeyPath, int]) -> None:
    for key, value in content.items():
        path = (*around, key)
        found.setdefault(path, line)
        if isinstance(value, dict):
            _note(value, path, line, found)
