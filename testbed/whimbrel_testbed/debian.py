"""Packages out of Debian's archive without root: apt fetches and verifies, dpkg-deb unpacks, no system file changes.

Which server is used in the end is decided elsewhere.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whimbrel_testbed import pins
from whimbrel_testbed.cache import TestbedError, announce, run

ADVICE = "Check the network, or install MySQL 8.0 or later yourself and set WHIMBREL_MYSQLD to the path of its mysqld."
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TOOLS = ("mysql", "mysqlbinlog", "mysqldump", "mysqladmin")


@dataclass(frozen=True)
class Source:
    """One archive the machine's own apt is set up for; `signed_by` is empty where its sources name no key."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def parse_list(text: str) -> list[Source]:
    """Read apt's one-line format (sources.list(5)); other lines name no archive."""
    pattern = re.compile(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#\n]*)", re.MULTILINE)
    found = []
    for options, uri, suite, components in pattern.findall(text):
        key = re.search(r"signed-by=(\S+)", options)
        found.append(Source(uri, (suite,), tuple(components.split()), key.group(1) if key else ""))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Read apt's deb822 format (sources.list(5)): paragraphs of `Field: value`, continued by leading blanks."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        pairs = re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*(?:\n[ \t]+.*)*)", paragraph, re.MULTILINE)
        fields = {name.lower(): value for name, value in pairs}
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").strip().lower() == "no":
            continue
        key = fields.get("signed-by", "").strip()
        key = key if key.startswith("/") else ""
        suites, components = tuple(fields.get("suites", "").split()), tuple(fields.get("components", "").split())
        found += [Source(uri, suites, components, key) for uri in fields.get("uris", "").split()]
    return found


def machine_sources(etc: Path = Path("/etc/apt")) -> list[Source]:
    """Return the archives of the machine's own apt, in either format."""
    found: list[Source] = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            found += parse_list(path.read_text(encoding="utf-8"))
        elif path.suffix == ".sources" and path.is_file():
            found += parse_deb822(path.read_text(encoding="utf-8"))
    return found


def choose_mirror(sources: list[Source]) -> Source | None:
    """Return the machine's Debian mirror: with `main`, and with whole releases, not only their updates."""
    for source in sources:
        whole = any("/" not in suite and "-" not in suite for suite in source.suites)
        path = source.uri.rstrip("/")
        if whole and "main" in source.components and path.endswith("/debian"):
            return source
    return None


def is_debian(release: Path = Path("/etc/os-release")) -> bool:
    """Say whether this machine runs Debian itself (a derivative's keys and suites differ)."""
    return release.is_file() and re.search(r'^ID="?debian"?$', release.read_text(), re.MULTILINE) is not None


def release_name(release: Path = Path("/etc/os-release")) -> str:
    """Return the name of the machine's release (`bookworm`), `unnamed` where it says none."""
    found = re.search(r'^VERSION_CODENAME="?(\w+)"?$', release.read_text(), re.MULTILINE)
    return found.group(1) if found else "unnamed"


def fetch_mysql(prefix: Path) -> None:
    """Fill `prefix` with MySQL's server and client and every library they need, signatures checked by apt."""
    if not is_debian() or shutil.which("apt-get") is None:
        raise TestbedError(f"No MySQL server was found, and only on Debian can one be fetched without root. {ADVICE}")
    mirror = choose_mirror(machine_sources())
    if mirror is None:
        raise TestbedError(f"No MySQL server was found, and this machine's apt sources name no Debian mirror. {ADVICE}")
    with tempfile.TemporaryDirectory(prefix="whimbrel-apt-") as scratch:
        _fetch_into(Path(scratch), mirror, prefix)


def fetch_packages(prefix: Path, packages: Sequence[str], suite: str | None = None) -> None:
    """Unpack these packages, and none they need, into `prefix`; signatures checked by apt.

    They are of the machine's own release where no `suite` is named.
    Raises TestbedError where the machine is no Debian, or where apt cannot give them.
    """
    mirror = choose_mirror(machine_sources()) if is_debian() and shutil.which("apt-get") else None
    if mirror is None:
        raise TestbedError(
            f"{', '.join(packages)} can be fetched only on Debian, from a mirror that apt knows: install their like."
        )
    with tempfile.TemporaryDirectory(prefix="whimbrel-apt-") as name:
        scratch = Path(name)
        options = _apt_options(scratch, mirror, suite or " ".join(mirror.suites))
        announce(f"reading the package lists of Debian {suite or mirror.suites[0]} (some 10 MB)")
        run(["apt-get", *options, "update", "-q", "--error-on=any"], what="apt-get update", timeout=600)
        archives = scratch / "cache" / "archives"
        fetch = ["env", f"--chdir={archives}", "apt-get", *options, "download", "-q", *packages]
        run(fetch, what=f"Fetching {', '.join(packages)}", timeout=600)
        _unpack(archives, prefix)


def _fetch_into(scratch: Path, mirror: Source, prefix: Path) -> None:
    apt = ["apt-get", *_apt_options(scratch, mirror, pins.MYSQL_SUITE)]
    announce(f"reading the package lists of Debian {pins.MYSQL_SUITE} (17 MB, once)")
    run([*apt, "update", "-q", "--error-on=any"], what="apt-get update", timeout=600, advice=ADVICE)
    announce("fetching the MySQL server and the libraries it needs (66 MB, once)")
    fetch = [*apt, "install", "-q", "-y", "--download-only", "--no-install-recommends", *pins.MYSQL_PACKAGES]
    run(fetch, what="Fetching MySQL", timeout=1200, advice=ADVICE)
    announce("unpacking it")
    unpacked = scratch / "root"
    _unpack(scratch / "cache" / "archives", unpacked)
    _keep_what_runs(unpacked / "usr", prefix / "usr")


def _unpack(archives: Path, root: Path) -> None:
    for package in sorted(archives.glob("*.deb")):
        run(["dpkg-deb", "-x", str(package), str(root)], what=f"Unpacking {package.name}", timeout=300)


def _apt_options(scratch: Path, mirror: Source, suites: str) -> list[str]:
    """Write a private apt set-up (lists, cache and an empty status file) and return the options that select it."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()
    sources = scratch / "debian.sources"
    sources.write_text(
        f"Types: deb\nURIs: {mirror.uri}\nSuites: {suites}\nComponents: main\n"
        f"Signed-By: {mirror.signed_by or _KEYRING}\n"
    )
    options = {
        "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "-", "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status", "Dir::Cache": scratch / "cache", "APT::Sandbox::User": "root",
        "Acquire::Languages": "none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Retries": 3, "Debug::NoLocking": 1,
    }  # fmt: skip
    return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]


def _keep_what_runs(source: Path, destination: Path) -> None:
    """Move the programs, the libraries and MySQL's own files; leave manuals, perl and the rest behind."""
    destination.mkdir()
    for folder in ("sbin", "bin", "share"):
        (destination / folder).mkdir()
    shutil.move(source / "sbin" / "mysqld", destination / "sbin" / "mysqld")
    for tool in _TOOLS:
        shutil.move(source / "bin" / tool, destination / "bin" / tool)
    shutil.move(source / "share" / "mysql", destination / "share" / "mysql")
    shutil.move(source / "lib", destination / "lib")
    for perl in (destination / "lib").glob("*-linux-gnu/perl*"):
        shutil.rmtree(perl)
