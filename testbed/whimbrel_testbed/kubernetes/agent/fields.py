"""Pure: what the downward API says of a pod (fieldRef)."""

from __future__ import annotations

import json
import re

from whimbrel_testbed.kubernetes.agent.shapes import Json, Unsupported

HOST_IP = "127.0.0.1"
_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_WHOLE = re.compile(r"metadata\.(labels|annotations)")


def field_value(pod: Json, pod_ip: str, path: str) -> str:
    """Return the text of a field of the pod, as an environment variable or a downward API file has it."""
    metadata, spec = pod["metadata"], pod["spec"]
    if keyed := _KEYED.fullmatch(path):
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    if whole := _WHOLE.fullmatch(path):
        entries = sorted((metadata.get(whole[1]) or {}).items())
        return "\n".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in entries)
    known = {
        "metadata.name": metadata["name"], "metadata.namespace": metadata["namespace"], "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""), "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": pod_ip, "status.podIPs": pod_ip, "status.hostIP": HOST_IP, "status.hostIPs": HOST_IP,
    }  # fmt: skip
    if path not in known:
        raise Unsupported(f"this node agent has no fieldRef {path}")
    return str(known[path])


def field_of_source(source: Json, pod: Json, pod_ip: str) -> str:
    """Return the value of a downward API source; only `fieldRef` is known here."""
    if "fieldRef" not in source:
        raise Unsupported("this node agent has no resourceFieldRef: it knows no resource limits")
    return field_value(pod, pod_ip, source["fieldRef"]["fieldPath"])
