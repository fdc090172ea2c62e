"""What a real node is told, the image of its pods' namespaces, its control groups and its addresses; nothing runs."""

import io
import json
import tarfile
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes.credentials import make_credentials
from whimbrel_testbed.kubernetes.node import cgroups, configuration, probe
from whimbrel_testbed.kubernetes.node.images import PAUSE, pause_archive
from whimbrel_testbed.kubernetes.node.network import INSIDE, Network, free_network

PLACES = configuration.Places(Path("/tmp/a node"), Path("/cni"))


def test_a_network_is_chosen_that_nobody_uses() -> None:
    assert free_network([]).machine == "198.18.1.1"
    # An address, a route, a pod range, and one that holds several.
    taken = ["default", "198.18.1.1", "198.18.2.0/30", "198.19.3.0/24", "198.18.4.0/23", "10.0.0.0/8"]
    assert free_network(taken) == Network(6)
    with pytest.raises(TestbedError, match="ip -4 route"):
        free_network(["198.18.0.0/15"])


def test_the_machine_gets_one_link_and_one_route() -> None:
    network = Network(7)
    *_, up, route = network.between(42)
    assert network.between(42)[0][-4:] == ["name", INSIDE, "netns", "42"]
    assert len(network.link) < 16
    assert (up[-1], route[-1]) == ("up", network.node)


def test_containerd_takes_no_path_of_the_machine() -> None:
    told = tomllib.loads(configuration.containerd(PLACES))
    cri = told["plugins"]["io.containerd.grpc.v1.cri"]
    assert told["grpc"]["address"] == str(PLACES.socket)
    assert (cri["sandbox_image"], cri["restrict_oom_score_adj"]) == (PAUSE, True)
    assert {told["root"], told["plugins"]["io.containerd.internal.v1.opt"]["path"]} == {
        "/tmp/a node/containerd",
        "/tmp/a node/opt",
    }
    replaced = PLACES.mounted
    assert Path(told["state"]).parent in replaced
    assert all(own.is_relative_to(PLACES.directory) for own in replaced.values())


def test_kubelet_and_proxy_know_their_network(tmp_path: Path) -> None:
    network = Network(7)
    credentials = make_credentials(tmp_path, [network.machine, network.node])
    kubelet = yaml.safe_load(configuration.kubelet(PLACES, network, credentials))
    assert kubelet["containerRuntimeEndpoint"] == f"unix://{PLACES.socket}"
    assert kubelet["authentication"]["anonymous"] == {"enabled": False}
    proxy = yaml.safe_load(configuration.kube_proxy(network, "node", tmp_path / "kubeconfig"))
    (plugin,) = json.loads(configuration.pod_network(network))["plugins"]
    assert proxy["clusterCIDR"] == network.pods == plugin["ipam"]["ranges"][0][0]["subnet"]


def test_the_pause_image_is_whole_and_the_same_each_time() -> None:
    archive = pause_archive(b"a program", "amd64")
    assert archive == pause_archive(b"a program", "amd64")
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        files = {name: (read.extractfile(name) or io.BytesIO()).read() for name in read.getnames()}
    (manifest,) = json.loads(files["manifest.json"])
    assert manifest["RepoTags"] == [PAUSE]
    told = json.loads(files[manifest["Config"]])
    (layer,) = [files[name] for name in manifest["Layers"]]
    assert told["rootfs"]["diff_ids"] == [f"sha256:{sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        assert inner.getmember(told["config"]["Entrypoint"][0].strip("/")).mode == 0o755


def _groups(root: Path, version: int) -> list[Path]:
    """Control groups as the kernel shows them."""
    if version == 2:
        (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        (root / "cgroup.subtree_control").touch()
        places = [root]
    else:
        places = [root / name for name in ("cpu,cpuacct", "cpuset", "memory", "pids", "systemd")]
        for place in places:
            place.mkdir()
        (root / "cpu").symlink_to("cpu,cpuacct")
    return places


@pytest.mark.parametrize("version", [1, 2])
def test_a_group_comes_and_goes_with_its_pods_in_every_hierarchy(tmp_path: Path, version: int) -> None:
    places = _groups(tmp_path, version)
    assert cgroups.hierarchies(tmp_path) == places
    assert cgroups.missing_controllers(tmp_path) == []
    cgroups.try_one(tmp_path)
    cgroups.make("whimbrel-1", tmp_path)
    for place in places:
        (place / "whimbrel-1" / "kubepods" / "burstable" / "pod1").mkdir(parents=True)
        (place / "whimbrel-10").mkdir()
    assert cgroups.sweep("whimbrel-1", tmp_path) == []
    left = {path.name for path in tmp_path.rglob("*whimbrel*")}
    assert left == {"whimbrel-10"}
    if version == 2:
        assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +cpuset +memory +pids"


def test_a_group_that_is_in_use_stays_and_is_named(tmp_path: Path) -> None:
    _groups(tmp_path, 1)
    held = tmp_path / "memory" / "whimbrel-1"
    held.mkdir()
    # The kernel's own files go with a group; a file here keeps the folder, as a process keeps a group.
    (held / "process").touch()
    assert cgroups.sweep("whimbrel-1", tmp_path, seconds=0) == [held]


def test_what_a_machine_lacks_is_told(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    assert cgroups.missing_controllers(tmp_path) == ["cpu", "cpuset", "pids"]
    with pytest.raises(OSError, match="whimbrel-try"):
        cgroups.try_one(Path("/proc/self"))


def test_the_environment_chooses() -> None:
    chosen = probe.choose({"WHIMBREL_NODE": "agent"})
    assert (chosen.node, chosen.programs) == (probe.Node.AGENT, None)
    assert "WHIMBREL_NODE=agent" in chosen.why_not
    with pytest.raises(TestbedError, match="neither kubelet nor agent"):
        probe.choose({"WHIMBREL_NODE": "docker"})


def test_folders_that_a_node_would_not_see_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "_REPLACED", (str(tmp_path / "replaced"),))
    monkeypatch.setenv("WHIMBREL_CACHE", str(tmp_path / "cache"))
    assert probe._places() == ""
    monkeypatch.setenv("WHIMBREL_CACHE", str(tmp_path / "replaced" / "cache"))
    assert probe._places().endswith("which a node sees another in: set WHIMBREL_CACHE")
