"""The driver mysqlclient, which PyPI carries as source only: built into the user's cache for the bench, nowhere else.

Nothing of Whimbrel imports it. The client library is the machine's own where pkg-config knows one, else MariaDB's
Connector/C out of Debian packages, unpacked beside the driver.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

from whimbrel_testbed import cache, debian
from whimbrel_testbed.cache import TestbedError, announce, run

_VERSION: Final = "2.3.1"
_SHA256: Final = "c07e1b83b530fd6c5888259f36afad1980d21fcb33ba97384650dd23c8f73ea8"
_PACKAGES: Final = ("libmariadb-dev", "libmariadb3")
_LIBRARIES: Final = ("mysqlclient", "mariadb", "libmariadb", "perconaserverclient")
"""The names under which mysqlclient's own build asks pkg-config for a client library, in its order."""

_DRIVER = "python"


def environment() -> dict[str, str]:
    """Return the variables under which a child Python imports MySQLdb; the driver is built where it is missing.

    Raises TestbedError with the reason where it cannot be built here.
    """
    if importlib.util.find_spec("MySQLdb") is not None:
        return {}
    own = _has_library()
    name = f"mysqlclient-{_VERSION}-{sys.implementation.cache_tag}-{'system' if own else 'debian'}"
    directory = cache.entry(name, functools.partial(_build, own))
    _check(directory, own, f"The client library may have changed since: remove {directory}, so that it is built again.")
    return _variables(directory, own)


def _variables(directory: Path, own: bool) -> dict[str, str]:
    """The fetched library looks for its sign-in plugins, caching_sha2_password among them, where it is told to."""
    path = os.pathsep.join(filter(None, (str(directory / _DRIVER), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path} | ({} if own else {"MARIADB_PLUGIN_DIR": str(_plugins(directory))})


def _has_library() -> bool:
    if shutil.which("pkg-config") is None:
        return False
    asked = (["pkg-config", "--exists", name] for name in _LIBRARIES)
    return any(subprocess.run(command, check=False, capture_output=True).returncode == 0 for command in asked)


def _build(own: bool, directory: Path) -> None:
    _require_compiler()
    flags = [] if own else _fetched_flags(directory)
    announce(f"building mysqlclient {_VERSION} for the bench (once)")
    with tempfile.TemporaryDirectory(prefix="whimbrel-mysqlclient-") as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"mysqlclient=={_VERSION} --hash=sha256:{_SHA256}\n")
        command = [
            "env", *flags, sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes",
            "--no-build-isolation", "--no-cache-dir", "--target", str(directory / _DRIVER), "-r", str(wanted),
        ]  # fmt: skip
        run(command, what="Building mysqlclient", timeout=600, advice="Check pip's index settings and its message:")
    _check(directory, own, "A library that it needs is not on this machine.")


def _check(directory: Path, own: bool, advice: str) -> None:
    variables = (f"{name}={value}" for name, value in _variables(directory, own).items())
    command = ["env", *variables, sys.executable, "-c", "import MySQLdb"]
    run(command, what="Importing the built mysqlclient", timeout=60, advice=advice)


def _require_compiler() -> None:
    compiler = (os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc")).split()[0]
    if shutil.which(compiler) is None:
        raise TestbedError(f"it must be compiled, and there is no C compiler ({compiler}): install gcc, or set CC")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise TestbedError("it must be compiled, and this Python has no C headers (Debian: install python3-dev)")
    for module in ("pip", "setuptools"):
        if importlib.util.find_spec(module) is None:
            raise TestbedError(f"it must be compiled, and {module} is not installed: install the extras testbed, build")


def _fetched_flags(directory: Path) -> list[str]:
    """Fetch the library; the driver finds it relative to itself, since the directory is renamed when all is there."""
    announce("fetching MariaDB's client library and headers for the bench (0.5 MB, once)")
    debian.fetch_packages(directory, _PACKAGES)
    library = _plugins(directory).parent.parent
    origin = Path("$ORIGIN") / os.path.relpath(library, directory / _DRIVER / "MySQLdb")
    return [
        f"MYSQLCLIENT_CFLAGS=-I{directory}/usr/include/mariadb",
        f"MYSQLCLIENT_LDFLAGS=-L{library} -lmariadb -Wl,-rpath,{origin}",
    ]


def _plugins(directory: Path) -> Path:
    found = sorted(directory.glob("usr/lib/*/libmariadb3/plugin"))
    if not found:
        raise TestbedError(f"{directory} holds no client library: remove that directory, so that it is fetched again")
    return found[0]
