"""What the Dockerfile's stages run, without an image: what is left out, what is refused, the bill of materials."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from image import bare, sbom, slim
from support.image import DOCKERFILE, ROOT, locked

CODE = [path for package in ("api", "operator", "worker") for path in (ROOT / package).rglob("*.py")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12+deb13u1
Description: a library
 Version: of nothing

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: adduser
Status: install ok installed
Architecture: all
Version: 1:3.152
"""


def _installed() -> list[metadata.Distribution]:
    """What a machine for tests has installed of what the image has."""
    wanted = locked()
    return [each for each in metadata.distributions() if sbom.canonical(each.metadata["Name"]) in wanted]


def _wanted() -> list[str]:
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    return [*PROJECT["dependencies"], *extras["operator"], *extras["worker"]]


def _bill() -> sbom.JSON:
    found = _installed()
    hashes = dict.fromkeys(locked(), "0" * 64)
    base = sbom.debian_packages(STATUS, {"ID": "debian", "VERSION_ID": "13"})
    return sbom.document(PROJECT, sbom.python_packages(hashes, found), base, sbom.requirements(found, _wanted()))


def test_the_bill_is_valid_names_licences_and_is_the_same_each_time() -> None:
    bill = _bill()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    assert bill == _bill()
    python = [each for each in bill["components"] if each["purl"].startswith("pkg:pypi/")]
    assert [each["name"] for each in python if not each.get("licenses")] == []
    for each in bill["components"]:
        parsed = PackageURL.from_string(each["purl"])
        assert (parsed.name, parsed.version) == (each["name"], each["version"])


def test_what_we_ask_for_leads_to_every_locked_package() -> None:
    edges = sbom.requirements(_installed(), _wanted())
    reached, pending = set[str](), [""]
    while pending:
        name = pending.pop()
        new = edges[name] - reached
        reached |= new
        pending += new
    assert reached == set(locked())


def test_an_extra_counts_where_somebody_asks_for_it() -> None:
    found = [
        _Made("a", ["b[fast]>=2", "c; extra == 'x'"]),
        _Made("b", ["d; python_version > '3' and extra == \"fast\"", "e"]),
        *[_Made("c", []), _Made("d", []), _Made("e", ["a", "missing"])],
    ]
    edges = sbom.requirements(found, ["a"])
    assert edges == {"": {"a"}, "a": {"b"}, "b": {"d", "e"}, "c": set(), "d": set(), "e": {"a"}}


class _Made(metadata.Distribution):
    """A distribution that asks for others."""

    def __init__(self, name: str, asks: list[str]) -> None:
        self._text = "\n".join([f"Name: {name}", "Version: 1", *(f"Requires-Dist: {line}" for line in asks), ""])

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: object) -> Path:
        raise AssertionError(path)


def test_debians_packages_are_those_that_are_installed() -> None:
    found = sbom.debian_packages(STATUS, {"ID": "debian", "VERSION_ID": "13"})
    assert [each["purl"] for each in found] == [
        "pkg:deb/debian/adduser@1:3.152?arch=all&distro=debian-13",
        "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64&distro=debian-13",
    ]


def test_a_base_without_debians_python_names_its_interpreter(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID="tiny"\nVERSION_ID=3\n', "utf-8")
    assert [each["name"] for each in sbom.base_parts(tmp_path)] == ["tiny", "python"]


def test_the_report_gives_archives_without_their_addresses() -> None:
    download = {"url": "x", "archive_info": {"hashes": {"sha256": "ab"}}}
    item = {"metadata": {"name": "Py_MySQL"}, "download_info": download}
    assert sbom.archives({"install": [item]}) == {"py-mysql": "ab"}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("numpy/lib/tests/test_io.py", "tests"),
        ("numpy/f2py/crackfortran.py", "build tools, headers, stubs"),
        ("numpy/_core/include/numpy/ndarraytypes.h", "build tools, headers, stubs"),
        ("botocore/data/ec2/2016-11-15/service-2.json.gz", "descriptions of other AWS services"),
        ("kubernetes/client/models/v1_pod.py", "unused models and calls of Kubernetes"),
        ("kubernetes/aio/client/api/core_v1_api.py", "unused models and calls of Kubernetes"),
        ("numpy/_core/_multiarray_umath.cpython-313-x86_64-linux-gnu.so", None),
        ("numpy-2.5.5.dist-info/licenses/LICENSE.txt", None),
        ("botocore/data/sts/2011-06-15/service-2.json.gz", None),
        ("botocore/data/endpoints.json", None),
        ("kubernetes/client/models/v1_used.py", None),
        ("kubernetes/client/models/__init__.py", None),
        ("kubernetes/client/api_client.py", None),
    ],
)
def test_what_is_taken_out(path: str, why: str | None) -> None:
    assert slim.why_not(PurePosixPath(path), {PurePosixPath("kubernetes/client/models/v1_used.py")}) == why


def test_kept_calls_keep_the_models_that_they_import() -> None:
    site = Path(str(metadata.distribution("kubernetes").locate_file("")))
    names = {str(path) for path in slim.used_of_kubernetes(site)}
    assert {f"kubernetes{aio}/client/api/custom_objects_api.py" for aio in ("", "/aio")} <= names
    assert "kubernetes/client/models/v1_delete_options.py" in names
    assert len(names) < 30


def test_slimming_leaves_no_empty_folder_and_no_command(tmp_path: Path) -> None:
    site, scripts = tmp_path / "lib/python3.13/site-packages", tmp_path / "bin"
    calls = [site / f"kubernetes{aio}/client/api/custom_objects_api.py" for aio in ("", "/aio")]
    for path in (site / "a/tests/deep/b.py", site / "a/c.py", scripts / "f2py", scripts / "python3", *calls):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x", "utf-8")
    assert slim.main([str(tmp_path)]) == 0
    assert [path.name for folder in (site / "a", scripts) for path in folder.iterdir()] == ["c.py", "python3"]
    assert all(path.is_file() for path in calls)


def _clients() -> Iterator[str]:
    """The AWS services that our code makes clients for."""
    for path in CODE:
        yield from re.findall(r"""\.(?:client|create_client|resource)\(\s*["']([\w-]+)["']""", path.read_text("utf-8"))


def test_every_aws_client_that_is_made_keeps_its_description() -> None:
    made = set(_clients())
    assert {"dsql", "sts"} <= made <= slim.AWS_SERVICES


def _kubernetes_names() -> Iterator[str]:
    """What our code takes from Kubernetes' client packages: imported by name, or as an attribute of `client`."""
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and re.fullmatch(r"kubernetes(\.aio)?\.client", node.module or ""):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "client":
                yield node.attr


def test_nothing_of_kubernetes_that_is_used_is_taken_out() -> None:
    models = {name for name in _kubernetes_names() if re.match(r"V\d|\w+Api$|\w+V\d", name)}
    assert models == {"CustomObjectsApi"}


def test_a_base_with_a_compiler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gcc").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bare.main() == 1
    assert f"the base has {tmp_path}/gcc" in capsys.readouterr().err


def test_installers_go_and_licences_stay(tmp_path: Path) -> None:
    names = {
        "bin": ["pip", "pip3.13", "python3.13-config", "idle3", "python3.13", "pipewire"],
        "site": ["pip", "pip-25.1.dist-info", "setuptools", "pipelines", "distutils-precedence.pth"],
        "lib": ["ensurepip", "json", "config-3.13-x86_64-linux-gnu", "venv"],
        "usr/share/doc/libc6": ["copyright", "changelog.gz"],
        "usr/share/locale": ["de"],
        "var/lib/dpkg": ["status", "status-old"],
    }
    for folder, files in names.items():
        (tmp_path / folder).mkdir(parents=True)
        for name in files:
            (tmp_path / folder / name).write_text("12", "utf-8")
    found = bare.installers([tmp_path / "bin"], [tmp_path / "site"], tmp_path / "lib")
    assert bare.remove([*found, *bare.texts(tmp_path)]) == 28
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"python3.13", "pipewire", "pipelines", "json", "copyright", "status"}


def test_set_user_bits_go(tmp_path: Path) -> None:
    for name, mode in (("su", 0o4755), ("wall", 0o2755), ("ls", 0o755)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    assert sorted(path.name for path in bare.without_set_ids(tmp_path)) == ["su", "wall"]
    assert {path.stat().st_mode & 0o7777 for path in tmp_path.iterdir()} == {0o755}


def test_one_version_everywhere() -> None:
    chart = yaml.safe_load((ROOT / "charts/whimbrel/Chart.yaml").read_text("utf-8"))
    told = re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    assert told == [PROJECT["version"]] == [chart["appVersion"]]


def test_the_build_sees_what_it_copies_and_nothing_of_the_test_bed() -> None:
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert all((ROOT / source).exists() for source in sources)
    assert {source if source in shown else source.split("/")[0] for source in sources} == shown
