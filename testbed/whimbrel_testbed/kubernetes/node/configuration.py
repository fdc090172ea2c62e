"""What containerd, kubelet, kube-proxy and the network plugins are told; nothing is written or started here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from whimbrel_testbed.kubernetes.credentials import Credentials
from whimbrel_testbed.kubernetes.node.images import PAUSE
from whimbrel_testbed.kubernetes.node.network import Network

NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL", "--mount-proc")
"""The command before the one that is to run in a node's namespaces; all in them ends with its first process."""

_REPLACED = ("/run", "/var/lib", "/var/log")


@dataclass(frozen=True)
class Places:
    """Where a node's programs have their files: one directory, which is there under the same path on both sides."""

    directory: Path
    plugins: Path
    """The network plugins' programs."""

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return self.directory / "containerd.sock"

    @property
    def first_process(self) -> Path:
        """The file that says, once programs may be started, the process id of the first one."""
        return self.directory / "pid"

    @property
    def networks(self) -> Path:
        """The folder that says which network pods get."""
        return self.directory / "networks"

    @property
    def mounted(self) -> dict[Path, Path]:
        """Folders of the machine that the node sees its own in, by their place in the machine.

        Some paths of kubelet, runc and the plugins cannot be set; in the node they lead here.
        """
        return {Path(path): self.directory / path.strip("/").replace("/", "-") for path in _REPLACED}


def containerd(places: Places) -> str:
    """Return containerd's configuration (TOML, version 2, which 1.4 to 2 read).

    `restrict_oom_score_adj`: without CAP_SYS_RESOURCE a process cannot be made less likely to be killed.
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = {_text(places.directory / "containerd")}
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = {_text(places.socket)}
[plugins."io.containerd.internal.v1.opt"]
  path = {_text(places.directory / "opt")}
[{cri}]
  sandbox_image = {_text(PAUSE)}
  restrict_oom_score_adj = true
  [{cri}.cni]
    bin_dir = {_text(places.plugins)}
    conf_dir = {_text(places.networks)}
  [{cri}.containerd]
    snapshotter = "overlayfs"
    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def _text(value: Path | str) -> str:
    # A basic string of TOML takes the escapes of JSON.
    return json.dumps(str(value))


def pod_network(network: Network) -> str:
    """Return the network's configuration: a bridge, addresses from the pods' range, nothing hidden behind another.

    The machine has a route to the pods, so no address needs to be translated.
    """
    ranges = [[{"subnet": network.pods}]]
    bridge = {
        "type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": False, "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    }  # fmt: skip
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}, indent=2)


def kubelet(places: Places, network: Network, credentials: Credentials) -> str:
    """Return kubelet's configuration (YAML).

    `failCgroupV1`: a machine with control groups of version 1 is taken. `enforceNodeAllocatable`, the empty
    `evictionHard` and `localStorageCapacityIsolation`: the machine belongs to others too. `clusterDNS`: there is no
    name server; the machine refuses a question at once.
    """
    return _yaml({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": False, "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{network.group}",
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False, "failSwapOn": False, "evictionHard": {},
        "imageGCHighThresholdPercent": 100, "protectKernelDefaults": False,
        "containerRuntimeEndpoint": f"unix://{places.socket}",
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True},
                           "x509": {"clientCAFile": str(credentials.ca_file)}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(credentials.server.certificate), "tlsPrivateKeyFile": str(credentials.server.key),
        "resolvConf": "", "clusterDNS": [network.machine], "clusterDomain": "cluster.local",
        "volumePluginDir": str(places.directory / "volume-plugins"),
    })  # fmt: skip


def kube_proxy(network: Network, node: str, kubeconfig: Path) -> str:
    """Return kube-proxy's configuration (YAML); it leaves the kernel's connection tracking as it is."""
    return _yaml({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables", "clusterCIDR": network.pods, "hostnameOverride": node, "bindAddress": network.node,
        "clientConnection": {"kubeconfig": str(kubeconfig)}, "conntrack": {"maxPerCore": 0, "min": 0},
    })  # fmt: skip


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False)
