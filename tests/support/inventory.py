"""What is in a cluster: all objects of all kinds, to see what came and what is left."""

from __future__ import annotations

from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

# What a cluster itself makes and drops as time goes.
_PASSING = {"events", "events.events.k8s.io", "endpoints", "endpointslices.discovery.k8s.io"}
# A node's sign of life, which it gives when it comes to it.
_HEARTBEAT = "Lease/kube-node-lease/"
_OF_EVERY_NAMESPACE = {"ServiceAccount/default", "ConfigMap/kube-root-ca.crt"}


def everything(cluster: KubernetesCluster) -> set[str]:
    """All objects as kind/namespace/name but the passing ones, and ours, which go with their definitions."""
    kinds = set(cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()) - _PASSING
    kinds = {kind for kind in kinds if not kind.endswith(".whimbrel.dev")}
    shown = "{range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{'\\n'}{end}"
    found = cluster.kubectl("get", ",".join(sorted(kinds)), "-A", "-o", f"jsonpath={shown}").split()
    return {each for each in found if not each.startswith(_HEARTBEAT)}


def in_namespace(cluster: KubernetesCluster, namespace: str) -> set[str]:
    """All objects in a namespace as kind/name, ours too; not the passing ones, Secrets, and what each namespace has."""
    kinds = set(cluster.kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()) - _PASSING
    shown = "{range .items[*]}{.kind}/{.metadata.name}{'\\n'}{end}"
    listed = ",".join(sorted(kinds - {"secrets"}))
    found = cluster.kubectl("get", listed, "-n", namespace, "-o", f"jsonpath={shown}").split()
    return set(found) - _OF_EVERY_NAMESPACE
