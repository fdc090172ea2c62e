"""Takes out of the installed packages what the image never runs: `python slim.py ENVIRONMENT`. Which packages there are
is said by locks/image.txt; what it takes out of the base stands in bare.py."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Set
from pathlib import Path, PurePosixPath
from typing import Final

# The clients that are made: the worker's own, and those by which botocore finds an identity.
AWS_SERVICES: Final = frozenset({"dsql", "signin", "sso", "sso-oidc", "sts"})
# A worker's reports go by this one; all other requests to the API server are made by path. The packages look a name's
# module up when the name is first used, so that nothing else is missed.
_CALLS: Final = "api/custom_objects_api.py"
_GENERATED: Final = ("kubernetes/client", "kubernetes/aio/client")
_IMPORT: Final = re.compile(r"^\s*from (kubernetes[\w.]*\.(?:models|api)\.\w+) import", re.MULTILINE)
_SOURCES: Final = frozenset({".a", ".c", ".cpp", ".h", ".lib", ".pxd", ".pxi", ".pyi", ".pyx"})
_BUILD_TOOLS: Final = ("numpy/distutils/", "numpy/f2py/")


def why_not(path: PurePosixPath, used: Set[PurePosixPath] = frozenset()) -> str | None:
    """Why a file of site-packages, by its path in there, is not kept; None where it is. `used` are the generated
    modules of Kubernetes' client that are needed.

    >>> why_not(PurePosixPath("numpy/lib/tests/test_io.py"))
    'tests'
    >>> why_not(PurePosixPath("botocore/data/sts/2011-06-15/service-2.json.gz"))
    """
    text = str(path)
    if "tests" in path.parts[:-1]:
        return "tests"
    if "__pycache__" in path.parts:
        return "compiled by others"
    if text.startswith(_BUILD_TOOLS) or path.suffix in _SOURCES:
        return "build tools, headers, stubs"
    if text.startswith("botocore/data/") and len(path.parts) > 3 and path.parts[2] not in AWS_SERVICES:
        return "descriptions of other AWS services"
    generated = str(path.parent.parent) in _GENERATED and path.parent.name in ("api", "models")
    if generated and path.name != "__init__.py" and path not in used:
        return "unused models and calls of Kubernetes"
    return None


def used_of_kubernetes(site: Path) -> set[PurePosixPath]:
    """The generated modules that are needed, and those that they import in their turn."""
    found: set[PurePosixPath] = set()
    pending = [PurePosixPath(package) / _CALLS for package in _GENERATED]
    while pending:
        path = pending.pop()
        if path not in found:
            found.add(path)
            names = _IMPORT.findall((site / path).read_text("utf-8"))
            pending += [PurePosixPath(name.replace(".", "/") + ".py") for name in names]
    return found


def slim(site: Path) -> Counter[str]:
    """Remove those files and the folders that they leave empty; the bytes freed by reason."""
    freed: Counter[str] = Counter()
    used, below = used_of_kubernetes(site), sorted(site.rglob("*"), reverse=True)
    for path in [each for each in below if not each.is_dir()]:
        if why := why_not(PurePosixPath(path.relative_to(site).as_posix()), used):
            freed[why] += path.lstat().st_size
            path.unlink()
    for folder in below:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return freed


def without_commands(scripts: Path) -> list[str]:
    """Remove the packages' commands, whose interpreter's name they hold: pods run modules. Their names."""
    gone = sorted(path for path in scripts.iterdir() if not path.name.startswith("python"))
    for path in gone:
        path.unlink()
    return [path.name for path in gone]


def main(arguments: list[str]) -> int:
    """Slim one virtual environment and say what that freed."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python slim.py ENVIRONMENT\n")
        return 2
    environment = Path(arguments[0])
    for site in environment.glob("lib/python3*/site-packages"):
        for why, size in slim(site).most_common():
            print(f"slim: {size / 1e6:6.1f} MB of {why}")
    print("slim: no commands", *without_commands(environment / "bin"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
