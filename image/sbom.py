"""What the image holds, as a bill of materials in CycloneDX's JSON: the Python packages of the interpreter that runs
this, that interpreter, and the base's Debian packages. Two runs over the same things give the same bytes.

`python sbom.py --project pyproject.toml [--installed REPORT] [--root /] > sbom.cdx.json`; the report is pip's own
(`pip install --report`) and names the archive that each package came in. Format: CycloneDX 1.6; names of packages:
the package-url specification.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

JSON = dict[str, Any]
# SPDX's identifiers, by what packages write into the field that was free text before there was License-Expression.
_SPDX: Final = {
    **{name: name for name in ("MIT", "MIT-0", "ISC", "PSF-2.0", "MPL-2.0", "Apache-2.0", "BSD-2-Clause")},
    **{"BSD-3-Clause": "BSD-3-Clause", "Apache 2.0": "Apache-2.0", "Apache License 2.0": "Apache-2.0"},
}
_REQUIREMENT: Final = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?", re.DOTALL)
_EXTRA: Final = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def python_packages(hashes: Mapping[str, str], found: Iterable[metadata.Distribution] | None = None) -> list[JSON]:
    """The installed distributions as components, by name; each with its archive's SHA-256 where that is known."""
    components: dict[str, JSON] = {}
    for each in metadata.distributions() if found is None else found:
        name = canonical(each.metadata["Name"])
        url = f"pkg:pypi/{name}@{quote(each.version)}"
        component: JSON = {"type": "library", "bom-ref": url, "name": name, "version": each.version, "purl": url}
        if licenses := _licenses(each.metadata):
            component["licenses"] = licenses
        if name in hashes:
            component["hashes"] = [{"alg": "SHA-256", "content": hashes[name]}]
        components.setdefault(name, component)
    return [components[name] for name in sorted(components)]


def _licenses(told: metadata.PackageMetadata) -> list[JSON]:
    """As the package states it: an expression, an identifier, or else the words of its classifiers or its text."""
    if "License-Expression" in told:
        return [{"expression": told["License-Expression"]}]
    text = told["License"].strip() if "License" in told else ""
    if text in _SPDX:
        return [{"license": {"id": _SPDX[text]}}]
    classifiers = [line.rpartition(" :: ")[2] for line in told.get_all("Classifier") or [] if line[:7] == "License"]
    return [{"license": {"name": name}} for name in sorted(classifiers) or text.splitlines()[:1]]


def archives(report: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 of each package's archive, from pip's report. Where it was downloaded from is not taken over."""
    told = {}
    for each in report["install"]:
        hashes = each["download_info"].get("archive_info", {}).get("hashes", {})
        if "sha256" in hashes:
            told[canonical(each["metadata"]["name"])] = hashes["sha256"]
    return told


def requirements(found: Iterable[metadata.Distribution], wanted: Iterable[str]) -> dict[str, set[str]]:
    """Which distribution asks for which, by name; the wanted ones, with their extras, stand under the empty name.

    A requirement for an extra counts where somebody asks for that extra. Conditions on the platform or the version of
    Python are not weighed: what they rule out is not installed, and a name that is not installed does not appear.
    """
    asks = {canonical(each.metadata["Name"]): list(each.requires or []) for each in found}
    edges: dict[str, set[str]] = {"": set(), **{name: set() for name in asks}}
    pending, seen = [("", line, frozenset[str]()) for line in wanted], set()
    while pending:
        asker, line, extras = pending.pop()
        name, asked = _required(line, extras)
        if name not in asks:
            continue
        edges[asker].add(name)
        if (name, asked) not in seen:
            seen.add((name, asked))
            pending += [(name, each, asked) for each in asks[name]]
    return edges


def _required(line: str, extras: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The name and the extras that a requirement asks for; no name where it belongs to an extra nobody asked for."""
    matched = _REQUIREMENT.match(line)
    if matched is None:
        raise ValueError(f"not a requirement: {line!r}")
    name, asked, condition = matched.groups()
    of = {canonical(extra) for extra in _EXTRA.findall(condition or "")}
    if of and not of & extras:
        return "", frozenset()
    return canonical(name), frozenset(canonical(each) for each in (asked or "").split(",") if each.strip())


def debian_packages(status: str, system: Mapping[str, str]) -> list[JSON]:
    """The installed packages of dpkg's status file as components, by name."""
    components = []
    for paragraph in re.split(r"\n\n+", status):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        if fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        distro = f"{system.get('ID', 'debian')}-{system.get('VERSION_ID', 'unstable')}"
        where = f"arch={architecture}&distro={distro}"
        url = f"pkg:deb/{system.get('ID', 'debian')}/{quote(name)}@{quote(version, safe=':')}?{where}"
        components.append({"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url})
    return sorted(components, key=lambda each: str(each["bom-ref"]))


def base_parts(root: Path) -> Iterator[JSON]:
    """The system below a root, the interpreter where no package of it brings that, and its Debian packages."""
    status, system = root / "var/lib/dpkg/status", _release(root / "etc/os-release")
    if "ID" in system:
        version = {"version": system["VERSION_ID"]} if "VERSION_ID" in system else {}
        yield {"type": "operating-system", "bom-ref": "operating-system", "name": system["ID"], **version}
    packages = debian_packages(status.read_text("utf-8"), system) if status.exists() else []
    if not any(re.fullmatch(r"python3\.\d+-minimal", each["name"]) for each in packages):
        yield _interpreter()
    yield from packages


def _release(path: Path) -> dict[str, str]:
    """The fields of os-release(5); none where the base has no such file."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    pairs = (line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    return {name: value.strip("\"'") for name, value in pairs}


def _interpreter() -> JSON:
    version = platform.python_version()
    url = f"pkg:generic/python@{quote(version)}"
    cpe = f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"
    return {"type": "platform", "bom-ref": url, "name": "python", "version": version, "cpe": cpe, "purl": url}


def document(project: Mapping[str, Any], packages: list[JSON], base: list[JSON], edges: Mapping[str, set[str]]) -> JSON:
    """The whole bill; its serial number is made from what it says."""
    name, version = project["name"], project["version"]
    own = {"type": "application", "bom-ref": name, "name": name, "version": version}
    reference = {"": name, **{each["name"]: each["bom-ref"] for each in packages}}
    depends = [
        {"ref": reference[asker], "dependsOn": sorted(reference[each] for each in asked)}
        for asker, asked in sorted(edges.items())
    ]
    told = {
        "metadata": {"component": {**own, "licenses": [{"expression": project["license"]}]}},
        "components": [*packages, *base],
        "dependencies": depends,
    }
    serial = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(told, sort_keys=True))}"
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": serial, "version": 1, **told}


def main(argv: list[str] | None = None) -> int:
    """Write the bill for what is installed here to standard output."""
    parser = argparse.ArgumentParser(prog="sbom.py")
    parser.add_argument("--project", type=Path, required=True, help="our pyproject.toml")
    parser.add_argument("--extras", default="operator,worker", help="the parts of it that are here (%(default)s)")
    parser.add_argument("--installed", type=Path, help="pip's report on what it installed")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the base's lists stand (%(default)s)")
    arguments = parser.parse_args(argv)
    project = tomllib.loads(arguments.project.read_text("utf-8"))["project"]
    wanted = [*project["dependencies"]]
    wanted += [line for name in arguments.extras.split(",") for line in project["optional-dependencies"][name]]
    hashes = archives(json.loads(arguments.installed.read_text("utf-8"))) if arguments.installed else {}
    found = list(metadata.distributions())
    bill = document(
        project, python_packages(hashes, found), list(base_parts(arguments.root)), requirements(found, wanted)
    )
    print(json.dumps(bill, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
