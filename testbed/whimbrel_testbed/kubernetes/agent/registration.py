"""The Node object and its Lease: written at the start, and renewed so that the node stays Ready."""

from __future__ import annotations

import asyncio
import logging
import os
import platform

from whimbrel_testbed.kubernetes.agent.client import AWAY, MERGE, STRATEGIC, Api, ApiError
from whimbrel_testbed.kubernetes.agent.fields import HOST_IP
from whimbrel_testbed.kubernetes.agent.shapes import Json, now, now_micro

WHAT_IT_IS = "processes-not-containers"
_MARK = "whimbrel.dev/node-agent"
_CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "1Ti"}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_LEASE_SECONDS = 40
_STATUS_EVERY = 5
_LOG = logging.getLogger(__name__)


def node_object(name: str, port: int, at: str) -> Json:
    """Return the Node as it is registered; `port` is where logs are asked for."""
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    labels = {
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": architecture,
        _MARK: WHAT_IT_IS,
    }  # fmt: skip
    metadata = {"name": name, "labels": labels, "annotations": {_MARK: WHAT_IT_IS}}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": metadata,
        "status": node_status(name, port, architecture, at),
    }  # fmt: skip


def node_status(name: str, port: int, architecture: str, at: str) -> Json:
    """Return the status of a node that is well; capacity is generous, as nothing is measured."""
    return {
        "capacity": _CAPACITY, "allocatable": _CAPACITY,
        "addresses": [{"type": "InternalIP", "address": HOST_IP}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "conditions": _conditions(at),
        "nodeInfo": {
            "architecture": architecture, "operatingSystem": "linux", "osImage": WHAT_IT_IS,
            "kernelVersion": platform.release(), "containerRuntimeVersion": f"process://{WHAT_IT_IS}",
            "kubeletVersion": WHAT_IT_IS, "kubeProxyVersion": "", "machineID": name, "systemUUID": name,
            "bootID": f"{name}-{os.getpid()}",
        },
    }  # fmt: skip


def _conditions(at: str) -> list[Json]:
    pressures = [
        ("MemoryPressure", "KubeletHasSufficientMemory"), ("DiskPressure", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "KubeletHasSufficientPID"),
    ]  # fmt: skip
    fine = [{"type": kind, "status": "False", "reason": reason, "lastHeartbeatTime": at} for kind, reason in pressures]
    message = "the node agent runs pods as plain processes"
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": message, "lastHeartbeatTime": at}
    return [*fine, ready]


class Registration:
    """Keeps one node known and Ready."""

    def __init__(self, api: Api, name: str, port: int, renew_seconds: float) -> None:
        self._api, self._name, self._port, self._renew_seconds = api, name, port, renew_seconds
        self._uid = ""

    async def register(self) -> None:
        """Write the Node and its Lease, and wait for the API server as long as it takes."""
        while True:
            try:
                await self._write_node()
                await self._renew_lease()
                return
            except AWAY as error:
                _LOG.info("The node is registered later: %s", error or type(error).__name__)
            await asyncio.sleep(self._renew_seconds)

    async def keep(self) -> None:
        """Renew until cancelled: the Lease each time, the status every fifth time, both at once after a failure."""
        beat = 1
        while True:
            await asyncio.sleep(self._renew_seconds)
            try:
                if beat % _STATUS_EVERY == 0:
                    await self._write_node()
                await self._renew_lease()
                beat += 1
            except (ApiError, *AWAY) as error:
                _LOG.info("The node is renewed later: %s", error or type(error).__name__)
                beat = _STATUS_EVERY

    async def _write_node(self) -> None:
        node = node_object(self._name, self._port, now())
        try:
            await self._api.call("PATCH", f"/api/v1/nodes/{self._name}", {"metadata": node["metadata"]}, STRATEGIC)
        except ApiError as error:
            if error.status != 404:
                raise
            await self._api.call("POST", "/api/v1/nodes", node)
        status = {"status": node["status"]}
        written = await self._api.call("PATCH", f"/api/v1/nodes/{self._name}/status", status, STRATEGIC)
        self._uid = written["metadata"]["uid"]

    async def _renew_lease(self) -> None:
        spec = {"holderIdentity": self._name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": now_micro()}
        try:
            await self._api.call("PATCH", f"{_LEASES}/{self._name}", {"spec": spec}, MERGE)
        except ApiError as error:
            if error.status != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": self._uid}
            metadata = {"name": self._name, "namespace": "kube-node-lease", "ownerReferences": [owner]}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            await self._api.call("POST", _LEASES, body)
