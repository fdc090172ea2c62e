"""Takes out of the base what a running image does not need, and refuses a base with a compiler: `python bare.py`, as
root, in a build stage of its own. What it takes out of the packages stands in slim.py."""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

# Linkers and `make` come with compilers; where one is left, so is much else.
COMPILERS: Final = ("cc", "gcc", "c++", "g++", "clang", "tcc", "as", "ld", "make", "cmake", "rustc", "go", "javac")
# Installers of Python packages, by the names of Debian's packages, of commands, and of modules.
_PACKAGES: Final = re.compile(r"python3(\.\d+)?-(venv|pip|setuptools|wheel|distutils|lib2to3|pkg-resources)(-whl)?")
_COMMANDS: Final = re.compile(r"(pip|easy_install|wheel|idle|2to3|pydoc)[-\d.]*|python[\d.]*-config")
_MODULES: Final = re.compile(r"(pip|setuptools|wheel|pkg_resources|_distutils_hack|distutils-precedence)\b.*")
_STDLIB: Final = ("ensurepip", "venv", "idlelib", "lib2to3", "distutils", "turtledemo", "tkinter", "test", "pydoc_data")
_EMPTIED: Final = ("var/log", "var/cache", "var/lib/apt/lists", "usr/share/man", "usr/share/info")
_REMOVED: Final = ("root/.cache", "usr/share/locale", "usr/share/python-wheels", "usr/share/bug", "usr/share/lintian")


def compilers(folders: Iterable[Path]) -> list[Path]:
    """The compilers and build tools in the folders of a PATH."""
    return [path for folder in folders for name in COMPILERS if (path := folder / name).exists()]


def installers(folders: Iterable[Path], sites: Iterable[Path], stdlib: Path) -> Iterator[Path]:
    """Whatever of a Python installs packages or is made for development: commands, modules, parts of its library."""
    for pattern, places in ((_COMMANDS, folders), (_MODULES, sites)):
        for place in places:
            yield from (path for path in place.glob("*") if pattern.fullmatch(path.name))
    yield from (path for name in _STDLIB if (path := stdlib / name).exists())
    yield from stdlib.glob("config-*")


def texts(root: Path) -> Iterator[Path]:
    """Manuals, translations, logs and caches below a root. Licences stay: they go with what they license."""
    yield from (root / name for name in _REMOVED)
    for name in _EMPTIED:
        yield from (root / name).glob("*")
    yield from (root / "var/lib/dpkg").glob("*-old")
    for path in (root / "usr/share/doc").glob("*/*"):
        if not path.name.startswith("copyright"):
            yield path


def remove(paths: Iterable[Path]) -> int:
    """Remove files and folders, those that are there; the bytes freed."""
    freed = 0
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            freed += sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())
            shutil.rmtree(path)
        elif path.is_symlink() or path.exists():
            freed += path.lstat().st_size
            path.unlink()
    return freed


def without_set_ids(root: Path) -> list[Path]:
    """Take the set-user and set-group bits from every file: nothing in a pod may gain rights. The files."""
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [each for each in inner if not (Path(folder) / each).is_mount()]
        for path in (Path(folder) / name for name in names):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                path.chmod(stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))
                found.append(path)
    return found


def _without_debian_packages() -> None:
    """Through dpkg, so that its list, which scanners read, says no more than what is there."""
    if not shutil.which("dpkg-query"):
        return
    asked = ["dpkg-query", "--show", "--showformat=${Package}\n"]
    names = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
    if gone := [name for name in names if _PACKAGES.fullmatch(name)]:
        subprocess.run(["dpkg", "--purge", "--force-depends", *gone], check=True, stdout=subprocess.DEVNULL)


def _compile(stdlib: Path) -> None:
    """Compiled for good: the root is read-only, and a file's time may change on its way into the image."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(stdlib, quiet=1, force=True, invalidation_mode=mode, rx=re.compile("-packages/")):
        raise SystemExit("bare: the base's standard library cannot be compiled: its message stands above")


def main() -> int:
    """Strip the machine that this runs on."""
    folders = [Path(each) for each in os.environ["PATH"].split(":")]
    if found := compilers(folders):
        sys.stderr.write(f"bare: the base has {found[0]}: choose a base without a compiler, such as a slim variant\n")
        return 1
    stdlib = Path(sysconfig.get_path("stdlib"))
    sites = [Path(each) for each in sys.path if each.endswith("-packages")]
    _without_debian_packages()
    freed = remove([*installers(folders, sites, stdlib), *texts(Path("/"))])
    _compile(stdlib)
    print(f"bare: {freed / 1e6:.1f} MB removed; no set-user bit at {', '.join(map(str, without_set_ids(Path('/'))))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
