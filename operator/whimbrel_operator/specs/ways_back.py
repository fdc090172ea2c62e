"""The ReverseSync of a Migration's own, as an object for the API server. When it is there is decided by the domain."""

from typing import Any

from whimbrel_api.base import API_VERSION
from whimbrel_operator.domain.decision import WantedWayBack
from whimbrel_operator.specs.names import FIELD_MANAGER, MANAGED_BY, Owner, owner_reference


def reverse_sync(owner: Owner, wanted: WantedWayBack) -> dict[str, Any]:
    """The object; garbage collection deletes it with its Migration, and its finalizer takes away what it made."""
    labels = {"app.kubernetes.io/part-of": "whimbrel", MANAGED_BY: FIELD_MANAGER}
    meta = {"name": wanted.name, "namespace": owner.namespace, "labels": labels}
    return {
        "apiVersion": API_VERSION,
        "kind": "ReverseSync",
        "metadata": {**meta, "ownerReferences": [owner_reference(owner)]},
        "spec": wanted.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
    }
