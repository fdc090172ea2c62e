"""The command lines of the control plane's servers and of the node agent; nothing is started here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from whimbrel_testbed.kubernetes.credentials import NODE_NAME, Credentials
from whimbrel_testbed.processes import HOST

SERVICE_RANGE = "10.0.0.0/24"


@dataclass(frozen=True)
class Ports:
    """The loopback ports of one cluster."""

    etcd: int
    etcd_peer: int
    api_server: int
    controllers: int
    scheduler: int


@dataclass(frozen=True)
class Layout:
    """What the servers of one cluster have in common: program, ports, credentials; where its API server listens."""

    binary: Path
    ports: Ports
    credentials: Credentials
    address: str = HOST

    def etcd(self, data: Path) -> list[str]:
        """Return etcd's command: one member, TLS for all who talk to it, and no fsync, as the data go with it."""
        own = self.credentials
        client, peer = f"https://{HOST}:{self.ports.etcd}", f"https://{HOST}:{self.ports.etcd_peer}"
        return _command(self.binary, "etcd", {
            "data-dir": data, "unsafe-no-fsync": "true", "name": "default", "initial-cluster": f"default={peer}",
            "listen-client-urls": client, "advertise-client-urls": client, "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer, "client-cert-auth": "true", "trusted-ca-file": own.ca_file,
            "cert-file": own.server.certificate, "key-file": own.server.key, "peer-client-cert-auth": "true",
            "peer-trusted-ca-file": own.ca_file, "peer-cert-file": own.server.certificate,
            "peer-key-file": own.server.key, "enable-grpc-gateway": "false", "log-level": "warn",
        })  # fmt: skip

    def api_server(self) -> list[str]:
        """Return kube-apiserver's command: Node and RBAC authorization, admission plugins as they are by default."""
        own = self.credentials
        return _command(self.binary, "kube-apiserver", {
            **self._secure(self.ports.api_server, self.address),
            "etcd-servers": f"https://{HOST}:{self.ports.etcd}", "etcd-cafile": own.ca_file,
            "etcd-certfile": own.to_etcd.certificate, "etcd-keyfile": own.to_etcd.key,
            "advertise-address": self.address,
            # A Service's endpoint may not be a loopback address.
            "endpoint-reconciler-type": "none" if self.address == HOST else "lease", "client-ca-file": own.ca_file,
            "authorization-mode": "Node,RBAC", "allow-privileged": "true",
            "service-cluster-ip-range": SERVICE_RANGE,
            "service-account-key-file": own.token_public_key, "service-account-signing-key-file": own.token_key,
            "service-account-issuer": "https://kubernetes.default.svc",
            "kubelet-certificate-authority": own.ca_file, "kubelet-client-certificate": own.to_node.certificate,
            "kubelet-client-key": own.to_node.key, "kubelet-preferred-address-types": "InternalIP,Hostname",
        })  # fmt: skip

    def controllers(self, kubeconfig: Path) -> list[str]:
        """Return kube-controller-manager's command, each controller with a service account of its own."""
        return _command(self.binary, "kube-controller-manager", {
            **self._secure(self.ports.controllers), **_client(kubeconfig),
            "service-account-private-key-file": self.credentials.token_key, "root-ca-file": self.credentials.ca_file,
            "use-service-account-credentials": "true",
        })  # fmt: skip

    def scheduler(self, kubeconfig: Path) -> list[str]:
        """Return kube-scheduler's command."""
        return _command(
            self.binary, "kube-scheduler", {**self._secure(self.ports.scheduler), **_client(kubeconfig)}
        )  # fmt: skip

    def node_agent(self, kubeconfig: Path, directory: Path) -> list[str]:
        """Return the command of the node agent of the test bed (a Python module, no kubelet)."""
        own = self.credentials
        module = [sys.executable, "-m", "whimbrel_testbed.kubernetes.agent"]
        return [
            *module, "--kubeconfig", str(kubeconfig), "--node-name", NODE_NAME, "--directory", str(directory),
            "--cert-file", str(own.server.certificate), "--key-file", str(own.server.key),
        ]  # fmt: skip

    def _secure(self, port: int, address: str = HOST) -> dict[str, object]:
        own = self.credentials.server
        return {
            "bind-address": address, "secure-port": port, "tls-cert-file": own.certificate,
            "tls-private-key-file": own.key,
        }  # fmt: skip


def _client(kubeconfig: Path) -> dict[str, object]:
    # The usual 20 requests a second make the deletion of a namespace slow.
    return {"kubeconfig": kubeconfig, "leader-elect": "false", "kube-api-qps": 200, "kube-api-burst": 400}


def _command(binary: Path, component: str, flags: dict[str, object]) -> list[str]:
    return [str(binary), component, *(f"--{name}={value}" for name, value in flags.items())]
