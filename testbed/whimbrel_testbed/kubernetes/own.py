"""A cluster of one's own in the place of the test bed's: used only where two environment variables say so together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from whimbrel_testbed.cache import TestbedError, announce
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster, existing_cluster, kubernetes_cluster

CLUSTER, KUBECONFIG = "WHIMBREL_TEST_CLUSTER", "WHIMBREL_TEST_KUBECONFIG"


def own_kubeconfig(environment: Mapping[str, str]) -> Path | None:
    """Return the kubeconfig of a cluster of one's own, None where none is asked for.

    Raises TestbedError where it is asked for by half: what runs against a cluster makes and deletes things there.
    """
    chosen, file = environment.get(CLUSTER, ""), environment.get(KUBECONFIG, "")
    if not chosen and not file:
        return None
    if chosen != "own" or not file:
        raise TestbedError(
            f"A cluster of your own is used only with both {CLUSTER}=own and {KUBECONFIG}=<file>; now they are "
            f"{chosen!r} and {file!r}. Set both, or unset both to have one started here."
        )
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise TestbedError(f"{KUBECONFIG}={file} is no file.")
    return path


@contextmanager
def chosen_cluster(
    *,
    nodes: bool = True,
    progress: Callable[[str], None] = announce,
    crds: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[KubernetesCluster]:
    """Give the cluster of one's own that the environment names, else a started one; `crds` are applied to either.

    In a cluster of one's own the custom resource definitions stay behind; nothing else is left by this function.
    """
    path = own_kubeconfig(os.environ if environment is None else environment)
    if path is None:
        with kubernetes_cluster(nodes=nodes, progress=progress, crds=crds) as started:
            yield started
        return
    with tempfile.TemporaryDirectory(prefix="whimbrel-cluster-") as directory:
        cluster = existing_cluster(path, Path(directory))
        progress(f"using the cluster at {cluster.server}, Kubernetes {cluster.version}, as {CLUSTER}=own says")
        if crds is not None:
            cluster.install(crds)
        yield cluster
