"""Who is who in a cluster of the test bed: certificates of servers and clients, the tokens' key, kubeconfig files.

Nothing is started here.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from whimbrel_testbed.certificates import Authority, make_authority, make_signing_key

SERVICE_ADDRESS = "10.0.0.1"
"""The first address of the services' range: the API server's own Service."""

NODE_NAME = "whimbrel-node-1"

_SERVER_NAMES = (
    "127.0.0.1", "localhost", SERVICE_ADDRESS, "kubernetes", "kubernetes.default", "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local", NODE_NAME,
)  # fmt: skip


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its key, as files (PEM)."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Credentials:
    """The files of one cluster; `users` are client certificates by common name."""

    directory: Path
    ca_file: Path
    server: KeyPair
    to_etcd: KeyPair
    to_node: KeyPair
    token_key: Path
    token_public_key: Path
    users: dict[str, KeyPair]

    def kubeconfig(self, user: str, server: str, path: Path) -> Path:
        """Write a kubeconfig of one user for the API server's address, readable by its owner only."""
        pair = self.users[user]
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "whimbrel", "cluster": {
                "server": server, "certificate-authority-data": _encoded(self.ca_file)}}],
            "users": [{"name": user, "user": {
                "client-certificate-data": _encoded(pair.certificate), "client-key-data": _encoded(pair.key)}}],
            "contexts": [{"name": "whimbrel", "context": {"cluster": "whimbrel", "user": user}}],
            "current-context": "whimbrel",
        }  # fmt: skip
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            yaml.safe_dump(document, file, sort_keys=False)
        return path


ADMINISTRATOR = "whimbrel-administrator"
CONTROLLERS = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
KUBE_PROXY = "system:kube-proxy"
NODE = f"system:node:{NODE_NAME}"
_GROUPS = {
    ADMINISTRATOR: "system:masters", CONTROLLERS: None, SCHEDULER: None, KUBE_PROXY: None, NODE: "system:nodes"
}  # fmt: skip


def make_credentials(directory: Path, addresses: Sequence[str] = ()) -> Credentials:
    """Make all keys and certificates of a new cluster in an existing directory; servers have `addresses` besides."""
    authority = make_authority(directory)
    token_key, token_public_key = make_signing_key(directory, "tokens")
    return Credentials(
        directory=directory,
        ca_file=authority.ca_file,
        server=KeyPair(*authority.server_certificate((*_SERVER_NAMES, *addresses))),
        to_etcd=_client(authority, "kube-apiserver-etcd-client"),
        # A kubelet asks what its client may do, and this group may all.
        to_node=_client(authority, "kube-apiserver-kubelet-client", "system:masters"),
        token_key=token_key,
        token_public_key=token_public_key,
        users={user: _client(authority, user, group) for user, group in _GROUPS.items()},
    )


def _client(authority: Authority, name: str, group: str | None = None) -> KeyPair:
    return KeyPair(*authority.client_certificate(name, group))


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
