"""Reading apt's sources and choosing binaries, without any server."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from whimbrel_testbed import cache, debian, provision
from whimbrel_testbed.cache import TestbedError

LIST = """
# deb http://commented.example/debian sid main
deb [arch=amd64 signed-by=/keys/one.gpg] http://mirror.example/debian bookworm main contrib # the mirror
deb-src http://mirror.example/debian bookworm main
deb http://mirror.example/debian-security bookworm-security main
"""

DEB822 = """Types: deb
# a comment inside
URIs: http://security.example/debian-security
Suites: trixie-security
Components: main

Types: deb deb-src
URIs: http://one.example/debian http://two.example/debian/
Suites: trixie
 trixie-updates
Components: main
Signed-By: /keys/two.gpg

Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Enabled: no
"""


def test_one_line_sources_give_the_mirror() -> None:
    chosen = debian.choose_mirror(debian.parse_list(LIST))
    assert chosen == debian.Source("http://mirror.example/debian", ("bookworm",), ("main", "contrib"), "/keys/one.gpg")


def test_deb822_sources_give_the_mirror_and_not_the_security_archive() -> None:
    sources = debian.parse_deb822(DEB822)
    chosen = debian.choose_mirror(sources)
    assert chosen is not None
    assert (chosen.uri, chosen.suites, chosen.signed_by) == (
        "http://one.example/debian", ("trixie", "trixie-updates"), "/keys/two.gpg",
    )  # fmt: skip
    assert "http://off.example/debian" not in {source.uri for source in sources}


def test_no_mirror_is_said() -> None:
    assert debian.choose_mirror(debian.parse_list("deb http://x.example/ubuntu noble main")) is None


def test_both_kinds_of_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(LIST)
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "other.list.disabled").write_text("deb http://disabled.example/debian sid main")
    uris = [source.uri for source in debian.machine_sources(tmp_path)]
    assert len(uris) == 5
    assert "http://disabled.example/debian" not in uris


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))", (9, 7, 4)),
        ("/usr/sbin/mysqld  Ver 8.0.44-0ubuntu0 for Linux on x86_64 ((Ubuntu))", (8, 0, 44)),
        ("mysqld  Ver 10.11.6-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64", None),
        ("command not understood", None),
    ],
)
def test_mysql_is_told_from_mariadb(text: str, version: tuple[int, ...] | None) -> None:
    assert provision.mysql_version(text) == version


def test_a_named_server_that_is_no_mysql_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "mysqld"
    fake.write_text("#!/bin/sh\necho 'mysqld  Ver 11.4.2-MariaDB for Linux'\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("WHIMBREL_MYSQLD", str(fake))
    with pytest.raises(TestbedError, match=r"WHIMBREL_MYSQLD=.*is no MySQL 8\.0 or later"):
        provision.mysql_binaries.__wrapped__()


def test_an_entry_is_made_once_and_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_CACHE", str(tmp_path))
    calls: list[Path] = []

    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise TestbedError("the network is away")

    def make(directory: Path) -> None:
        calls.append(directory)
        (directory / "whole").touch()

    with pytest.raises(TestbedError, match="the network is away"):
        cache.entry("thing", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]
    assert cache.entry("thing", make) == cache.entry("thing", make)
    assert len(calls) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"thing", "thing.lock"}
