"""What is known of a cluster that outlives its command: its state, and what has ended. Starting one: tests/cluster."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from support.helm import nested
from support.site import named
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes import own, standing

STATE = standing.Standing(
    pid=1, born=1, kubeconfig="/tmp/a b", server="https://198.18.1.1:1", version="v1", node="kubelet",
    words="a real node", address="198.18.1.1", socket="/s", logs={},
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a cluster tells of itself; the cache is one of this test alone."""
    monkeypatch.setenv("WHIMBREL_CACHE", str(tmp_path))
    (tmp_path / "cluster").mkdir()
    return tmp_path / "cluster"


def test_no_cluster_is_no_error(folder: Path) -> None:
    assert standing.found() is None
    assert standing.down() is False
    assert not folder.exists()


def test_a_cluster_whose_process_has_ended_is_none(folder: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid, born in ((ended.pid, 1), (os.getpid(), 1)):  # the second: its number is another process's now
        state = asdict(STATE) | {"pid": pid, "born": born}
        (folder / "state.json").write_text(json.dumps(state))
        assert standing.found() is None


def test_one_that_still_starts_is_none_and_goes_down(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as starting:
        (folder / "state.json").write_text(json.dumps({"pid": starting.pid, "born": _born(starting.pid)}))
        assert standing.found() is None
        assert standing.down() is True
        assert starting.wait() == -signal.SIGTERM
    assert standing.down() is False


def test_one_of_another_version_is_named_and_goes_down(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as running:
        state = {"pid": running.pid, "born": _born(running.pid), "colour": "red"}
        (folder / "state.json").write_text(json.dumps(state))
        with pytest.raises(TestbedError, match=r"of another version: make cluster-down\. .*colour"):
            standing.found()
        assert standing.down() is True
    assert running.returncode == -signal.SIGTERM


def _born(pid: int) -> int:
    """When a process began, in clock ticks since the machine's start."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_a_cluster_with_another_node_than_is_asked_for_is_refused() -> None:
    assert STATE.as_asked("") is STATE
    assert STATE.as_asked("kubelet") is STATE
    with pytest.raises(TestbedError, match=r"runs already, with a real node; WHIMBREL_NODE=agent asks for another"):
        STATE.as_asked("agent")


def test_one_that_does_not_answer_is_known_all_the_same(folder: Path) -> None:
    state = asdict(STATE) | {"pid": os.getpid(), "born": _born(os.getpid()), "logs": {"etcd": "/e"}}
    (folder / "state.json").write_text(json.dumps(state))
    assert standing.known() == standing.Standing(**state)


def test_a_state_that_is_none_is_named(folder: Path) -> None:
    (folder / "state.json").write_text('{"pid": 1}')
    with pytest.raises(TestbedError, match=r"state\.json is not what a cluster writes: remove it"):
        standing.found()


def test_images_need_a_cluster(folder: Path) -> None:
    with pytest.raises(TestbedError, match="make cluster"):
        standing.load(folder / "image.tar")


def test_a_command_finds_cluster_servers_and_node_by_its_environment() -> None:
    told = STATE.environment()
    assert own.own_kubeconfig(told | {own.KUBECONFIG: __file__}) == Path(__file__)
    assert (told["WHIMBREL_TESTBED_ADDRESS"], told["WHIMBREL_TEST_NODE"]) == ("198.18.1.1", "kubelet")
    assert STATE.told().splitlines()[-1] == "export KUBECONFIG='/tmp/a b'"


def test_a_wrong_command_shows_how_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["up", "now"], ["load"], ["run"], ["sideways"]):
        assert standing.main(words) == 2
        assert "up | down | load ARCHIVE | run COMMAND" in capsys.readouterr().err


def test_an_images_name_becomes_the_charts_values() -> None:
    tagged = named("registry.example:5000/team/whimbrel:1.2")
    assert nested(tagged) == {"image": {"repository": "registry.example:5000/team/whimbrel", "tag": "1.2"}}
    digest = "sha256:" + "0" * 64
    assert nested(named(f"registry.example/whimbrel@{digest}"))["image"] == {
        "repository": "registry.example/whimbrel",
        "digest": digest,
    }
    with pytest.raises(AssertionError, match="neither tag nor digest"):
        named("registry.example:5000/whimbrel")
