"""The image, built by the Dockerfile from a base made here: as root, where buildah and debootstrap are installed."""

import json
import re
import stat
from collections.abc import Iterator
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from image import bare
from support.image import Container, base, built, locked, needs_builder
from support.image import container as mounted

IMAGE = "localhost/whimbrel-test:dev"
BILL = "opt/whimbrel/sbom.cdx.json"
SOURCE = "https://git.example/whimbrel"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), needs_builder]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with built(IMAGE, base(tmp_path_factory.mktemp("base")), REVISION="tested", SOURCE=SOURCE):
        yield IMAGE


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    with mounted(image) as made:
        yield made


@pytest.fixture(scope="module")
def bill(container: Container) -> dict[str, Any]:
    text = (container.root / BILL).read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    told: dict[str, Any] = json.loads(text)
    return told


def _versions(bill: dict[str, Any], kind: str) -> dict[str, str]:
    """The versions of the components whose package-url is of a kind, by name."""
    return {each["name"]: each["version"] for each in bill["components"] if each.get("purl", "").startswith(kind)}


def test_it_runs_as_nobody_starts_the_operator_and_says_what_it_is(container: Container) -> None:
    config, label = container.configuration, "org.opencontainers.image."
    assert config["User"] == "65532:65532"
    assert config["Cmd"] == ["python", "-m", "whimbrel_operator"]
    labels = {key.removeprefix(label): text for key, text in config["Labels"].items() if key.startswith(label)}
    assert (labels["title"], labels["licenses"], labels["version"]) == ("Whimbrel", "Apache-2.0", "0.1.0")
    assert (labels["revision"], labels["source"]) == ("tested", SOURCE)
    assert labels["base.name"].startswith("localhost/")


def test_it_has_what_operator_and_workers_import(container: Container) -> None:
    told = "import whimbrel_operator.handlers, whimbrel_worker.runner, boto3, psycopg, pymysql, kopf; print('all')"
    assert container.run("python", "-c", told) == "all"
    assert container.run("id", "-u") == "65532"


def test_it_has_neither_test_bed_nor_command_line_nor_installers(container: Container) -> None:
    for module in ("whimbrel_testbed", "whimbrel_cli", "pytest", "pip", "setuptools", "ensurepip", "venv"):
        told = f"import importlib.util; print(importlib.util.find_spec('{module}'))"
        assert container.run("python", "-c", told) == "None"
        assert container.run("/usr/bin/python3", "-c", told) == "None"


def test_it_has_no_compiler_and_no_build_tool(container: Container) -> None:
    names = " ".join([*bare.COMPILERS, "pip", "pip3", "easy_install", "wheel", "f2py", "cython", "ar", "strip"])
    found = container.outcome("sh", "-c", f"for each in {names}; do command -v $each; done; true")
    assert found.stdout == ""
    assert [path for path in container.root.rglob("*") if path.suffix in (".whl", ".a", ".h", ".pyx")] == []
    assert not (container.root / "src").exists()


def test_nobody_can_gain_rights(container: Container) -> None:
    files = [path for path in container.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)] == []


def test_the_bill_names_all_that_is_installed_with_its_version(container: Container, bill: dict[str, Any]) -> None:
    asked = "import importlib.metadata as m; [print(d.metadata['Name'], d.version) for d in m.distributions()]"
    installed = dict(line.split() for line in container.run("python", "-c", asked).splitlines())
    named = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in installed.items()}
    assert _versions(bill, "pkg:pypi/") == named
    packages = container.run("dpkg-query", "--show", "--showformat=${Package} ${Version}\n").splitlines()
    assert _versions(bill, "pkg:deb/") == dict(line.split() for line in packages)


def test_the_bill_is_the_lock(bill: dict[str, Any]) -> None:
    lock = locked()
    python = [each for each in bill["components"] if each.get("purl", "").startswith("pkg:pypi/")]
    assert {each["name"] for each in python} == set(lock)
    for each in python:
        (told,) = each["hashes"]
        assert told["content"] in lock[each["name"]][each["version"]], each["name"]
        assert each["licenses"], each["name"]
    assert bill["metadata"]["component"]["name"] == "whimbrel"


def test_the_operator_starts_and_says_what_it_lacks(container: Container) -> None:
    done = container.outcome("python", "-m", "whimbrel_operator")
    assert "whimbrel-operator: no cluster is named" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_its_user_can_write_only_where_pods_have_a_volume(container: Container) -> None:
    """What cannot be written by this user is not missed where the root file system is read-only."""
    told = {path: path.lstat() for path in container.root.rglob("*")}
    files = {path: each for path, each in told.items() if stat.S_ISREG(each.st_mode) or stat.S_ISDIR(each.st_mode)}
    written = {
        path for path, each in files.items() if each.st_mode & stat.S_IWOTH or 65532 in (each.st_uid, each.st_gid)
    }
    assert {f"/{path.relative_to(container.root)}" for path in written} <= {"/tmp", "/var/tmp", "/run/lock"}


def test_it_runs_on_a_read_only_root(container: Container) -> None:
    refused = container.outcome("sh", "-c", "touch /tmp/here && touch /opt/whimbrel/here")
    assert "Read-only file system" in refused.stderr, refused.stderr
    operator = container.outcome("python", "-m", "whimbrel_operator")
    assert (operator.returncode, "no cluster is named" in operator.stderr) == (2, True), operator.stderr
    worker = container.outcome("python", "-m", "whimbrel_worker", "/none")
    assert (worker.returncode, "/none" in worker.stderr) == (2, True), worker.stderr


def test_it_is_compiled_and_carries_no_tests(container: Container) -> None:
    site = container.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    assert container.run("find", site, "-type", "d", "-name", "tests") == ""
    # Nothing that a start imports has to be compiled: not ours, not the packages', not the base's library.
    told = (
        "import sys, pathlib, whimbrel_operator.process, whimbrel_worker.runner; "
        "specs = [each.__spec__ for each in sys.modules.values() if getattr(each, '__file__', None)]; "
        "files = [each.cached for each in specs if each and each.origin.endswith('.py')]; "
        "print(len(files) > 500, [each for each in files if not pathlib.Path(each).is_file()])"
    )
    assert container.run("python", "-c", told) == "True []"


def test_tracebacks_name_the_files_where_they_are(container: Container) -> None:
    told = "import whimbrel_worker.runner as r; print(r.main.__code__.co_filename == r.__file__)"
    assert container.run("python", "-c", told) == "True"


def test_nothing_is_imported_from_the_folder_that_can_be_written(container: Container) -> None:
    planted = "cd /tmp && echo 'print(\"planted\")' > kopf.py && python -m whimbrel_operator"
    done = container.outcome("sh", "-c", planted)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr


def test_a_worker_without_a_task_file_says_so_and_ends_with_2(container: Container) -> None:
    done = container.outcome("python", "-m", "whimbrel_worker", "/none")
    assert done.returncode == 2, done.stderr
    assert "/none" in done.stderr


def test_it_carries_no_settings_of_this_machine(container: Container) -> None:
    assert container.run("python", "-c", "import os; print(os.path.exists('/etc/pip.conf'))") == "False"
