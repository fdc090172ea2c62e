"""A real Kubernetes cluster for the tests: one a test run, and a namespace of its own for each test."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.kubernetes.own import chosen_cluster

CRDS = Path(__file__).parents[1] / "crds"


@pytest.fixture(scope="session")
def cluster() -> Iterator[KubernetesCluster]:
    """Control plane, node and our CRDs for the whole run: stop or break the servers of a cluster of your own."""
    with chosen_cluster(crds=CRDS) as running:
        yield running


@pytest.fixture
def namespace(cluster: KubernetesCluster) -> Iterator[str]:
    """The name of a fresh namespace with its service account; deleted afterwards, which is not waited for."""
    name = f"t{os.getpid()}-{os.urandom(4).hex()}"
    cluster.kubectl("create", "namespace", name)
    deadline = time.monotonic() + 60
    while not cluster.kubectl("-n", name, "get", "serviceaccount", "default", "--ignore-not-found", "-o", "name"):
        assert time.monotonic() < deadline, f"namespace {name} got no service account within 60 s"
        time.sleep(0.05)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
