"""Small scripts with which a person looks around in the demo's servers. Passwords stay in files, out of arguments."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_script(path: Path, command: Sequence[str], passwords: Mapping[str, Path]) -> None:
    """Writes a script that runs `command` with the script's own arguments added.

    `passwords`: environment variables whose values stand in files, such as MYSQL_PWD. The script is the owner's alone.
    """
    exports = [f'{name}="$(cat {shlex.quote(str(file))})"\nexport {name}' for name, file in passwords.items()]
    text = "\n".join(["#!/bin/sh", *exports, f'exec {shlex.join(command)} "$@"', ""])
    path.touch(mode=0o700)
    path.write_text(text, encoding="utf-8")


def psql_arguments(psql: Path, parameters: Mapping[str, object]) -> list[str]:
    """The command line of psql for a connection's parameters; the password is left out."""
    text = " ".join(f"{name}={_quoted(str(value))}" for name, value in parameters.items() if name != "password")
    return [str(psql), text]


def _quoted(value: str) -> str:
    """A value as libpq's connection strings have it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
