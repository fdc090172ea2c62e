"""The image, built by the Dockerfile from a base made here: as root, where buildah and debootstrap are installed."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/whimbrel-test-base:trixie", "localhost/whimbrel-test:dev"
NEEDED = ("buildah", "debootstrap")
CERTIFICATES, PIP_SETTINGS = Path("/etc/ssl/certs"), Path("/etc/pip.conf")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, NEEDED)),
        reason=f"building an image needs root and {' and '.join(NEEDED)}: apt install {' '.join(NEEDED)}",
    ),
]


def buildah(*arguments: str | Path) -> str:
    done = subprocess.run(["buildah", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


def debian_mirror() -> str:
    """The package server that this machine's apt uses."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=True
    )
    return next(line for line in told.stdout.split() if line.rstrip("/").endswith("/debian")).rstrip("/")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small Debian with Python, as an image: nothing needs to be pulled."""
    if buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        return BASE
    folder = tmp_path_factory.mktemp("base")
    packages = "--include=python3,python3-venv,ca-certificates"
    told = ["debootstrap", "--variant=minbase", packages, "trixie", str(folder), debian_mirror()]
    subprocess.run(told, check=True, capture_output=True)
    for packed in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(folder / packed)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, folder, "/")
    buildah("commit", "--quiet", "--rm", container, BASE)
    return BASE


@pytest.fixture(scope="module")
def image(base: str) -> Iterator[str]:
    """The image of the Dockerfile; what this machine needs to reach its package index is lent to the build alone."""
    lent = [path for path in (CERTIFICATES, PIP_SETTINGS) if path.exists()]
    volumes = [f"--volume={path}:{path}:ro" for path in lent]
    arguments = [f"--build-arg={each}" for each in (f"BASE={base}", "REVISION=tested")]
    buildah("build", "--isolation", "chroot", "--timestamp", "0", *volumes, *arguments, "--tag", IMAGE, ROOT)
    yield IMAGE
    buildah("rmi", IMAGE)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[str]:
    made = buildah("from", "--pull-never", image)
    yield made
    buildah("rm", made)


def run(container: str, *command: str) -> str:
    return buildah("run", "--isolation", "chroot", container, "--", *command)


def test_it_runs_as_nobody_and_starts_the_operator(image: str) -> None:
    config = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    assert config["User"] == "65532:65532"
    assert config["Cmd"] == ["python", "-m", "whimbrel_operator"]
    assert config["Labels"]["org.opencontainers.image.revision"] == "tested"
    assert config["Labels"]["org.opencontainers.image.title"] == "Whimbrel"


def test_it_has_what_operator_and_workers_import(container: str) -> None:
    told = "import whimbrel_operator.handlers, whimbrel_worker.runner, boto3, psycopg, pymysql, kopf; print('all')"
    assert run(container, "python", "-c", told) == "all"
    assert run(container, "id", "-u") == "65532"


def test_it_has_neither_test_bed_nor_command_line_nor_build_tools(container: str) -> None:
    for module in ("whimbrel_testbed", "whimbrel_cli", "pytest", "pip"):
        told = f"import importlib.util; print(importlib.util.find_spec('{module}'))"
        assert run(container, "python", "-c", told) == "None"


def test_the_operator_starts_and_says_what_it_lacks(container: str) -> None:
    command = ["buildah", "run", "--isolation", "chroot", container, "--", "python", "-m", "whimbrel_operator"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "whimbrel-operator: no cluster is named" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_its_user_can_write_only_where_pods_have_a_volume(container: str) -> None:
    """What cannot be written by this user is not missed where the root file system is read-only."""
    # Folders that it may not even look into end find with an error, which says nothing about writing.
    written = run(container, "sh", "-c", "find / -xdev -writable -not -type l -not -path '/tmp/*' 2>/dev/null; true")
    assert set(written.split()) <= {"/tmp", "/var/tmp", "/run/lock"}


def test_it_is_compiled_and_carries_no_tests(container: str) -> None:
    site = run(container, "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    assert run(container, "find", site, "-type", "d", "-name", "tests") == ""
    told = "import whimbrel_worker.runner as r, pathlib; print(pathlib.Path(r.__cached__).is_file())"
    assert run(container, "python", "-c", told) == "True"


def test_a_worker_without_a_task_file_says_so_and_ends_with_2(container: str) -> None:
    command = ["buildah", "run", "--isolation", "chroot", container, "--", "python", "-m", "whimbrel_worker", "/none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "/none" in done.stderr


def test_it_carries_no_settings_of_this_machine(container: str) -> None:
    found = run(container, "python", "-c", "import os; print(os.path.exists('/etc/pip.conf'))")
    assert found == "False"
