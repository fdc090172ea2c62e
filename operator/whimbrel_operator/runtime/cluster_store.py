"""The resources of a cluster for a person's tools: read, found, patched, with events, reports and logs.

Nothing here decides or reconciles. Rights: get and list on migrations, validations and reversesyncs, patch to steer;
what else may not be read (events, reports, jobs, pods) is left out and named by `withheld`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from whimbrel_api.base import API_VERSION
from whimbrel_api.migration import Migration
from whimbrel_api.reports import WorkerReport
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.validation import Validation
from whimbrel_operator.errors import Forbidden, NotFound, Refused
from whimbrel_operator.runtime.cluster_access import JSON, Cluster
from whimbrel_operator.runtime.events import RecordedEvent
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.resources import Resource
from whimbrel_operator.specs.names import LEASE, UID

CONTAINER: Final = "worker"
_MODELS: Final[Mapping[str, type[Migration] | type[Validation] | type[ReverseSync]]] = {
    "Migration": Migration,
    "Validation": Validation,
    "ReverseSync": ReverseSync,
}
_PLURALS: Final = {"Migration": "migrations", "Validation": "validations", "ReverseSync": "reversesyncs"}
_OWNED: Final = {
    "jobs": "/apis/batch/v1/namespaces/{}/jobs",
    "pods": "/api/v1/namespaces/{}/pods",
    "worker reports": f"/apis/{API_VERSION}/namespaces/{{}}/workerreports",
}
_MANAGER: Final = "whimbrel-cli"
_T = TypeVar("_T")


@dataclass(frozen=True)
class OperatorSeen:
    """The Lease of an operator: who holds it, and whether it is still renewed."""

    namespace: str
    holder: str
    renewed_at: datetime | None
    alive: bool


class ClusterStore:
    """The resources of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.withheld: set[str] = set()

    def get(self, key: Key) -> Resource:
        """The resource with its status. Raises NotFound, Refused where it cannot be understood."""
        return _parsed(key.kind, self.document(key))

    def document(self, key: Key) -> JSON:
        """The resource as the API server has it, without managedFields. Raises NotFound."""
        found = self.cluster.read(_path(key))
        found.get("metadata", {}).pop("managedFields", None)
        return found

    def documents(self, kind: str | None = None, namespace: str | None = None) -> list[JSON]:
        """All resources as the API server has them, sorted by namespace, kind and name."""
        kinds = [each for each in _PLURALS if kind in (None, each)]
        found = [
            {"apiVersion": API_VERSION, "kind": each, **item}
            for each in kinds
            for item in self.cluster.pages(_folder(each, namespace))
        ]
        for item in found:
            item["metadata"].pop("managedFields", None)
        return sorted(found, key=_key)

    def resources(self, kind: str | None = None, namespace: str | None = None) -> list[Resource]:
        """All resources with their status, sorted."""
        return [_parsed(item["kind"], item) for item in self.documents(kind, namespace)]

    def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[Key]:
        """All resources, sorted."""
        return [_key(item) for item in self.documents(kind, namespace)]

    def find(self, name: str, *, namespace: str = "default", kind: str = "Migration") -> Key:
        """The key of a resource by name. Raises NotFound."""
        key = Key(namespace, kind, name)
        if kind not in _PLURALS:
            raise NotFound(f"no {kind} {name}", where=f"namespace {namespace}")
        self.document(key)
        return key

    def patch_spec(self, key: Key, patch: Mapping[str, Any]) -> None:
        """Change the spec by a merge patch. Raises NotFound, Refused with the server's own words."""
        self.cluster.merge(_path(key), {"spec": patch}, fieldManager=_MANAGER)

    def events(self, key: Key, limit: int = 50) -> Sequence[RecordedEvent]:
        """The last events, oldest first; those of a resource of the same name made earlier are not among them."""
        uid = self._uid(key)
        path, selector = f"/api/v1/namespaces/{key.namespace}/events", f"involvedObject.uid={uid}"
        items = self._allowed("events", lambda: list(self.cluster.pages(path, fieldSelector=selector)))
        return sorted((_event(item) for item in items or []), key=lambda event: event.at)[-limit:]

    def reports(self, key: Key) -> Mapping[str, WorkerReport]:
        """The newest report of each worker, by the WorkerReport's name.

        One that was never written is left out, as is one that another version of whimbrel wrote in its own words.
        """
        read = ((item["metadata"]["name"], report_of(item)) for item in self.owned(key, "worker reports"))
        return {name: report for name, report in read if report is not None}

    def log_tail(self, key: Key, lines: int = 50) -> Mapping[str, Sequence[str]]:
        """The last lines that each worker wrote, by pod. A pod that cannot be asked says why in its place."""
        names = [pod["metadata"]["name"] for pod in self.owned(key, "pods")]
        return {name: self._log(key.namespace, name, lines) for name in names}

    def log(self, namespace: str, pod: str, lines: int | None = None) -> Sequence[str]:
        """The last lines that the worker in a pod wrote; all that the node keeps for None.

        Raises NotFound and Refused where the pod is gone or has not begun.
        """
        asked = {"container": CONTAINER, **({"tailLines": str(lines)} if lines is not None else {})}
        return self.cluster.text(f"{_OWNED['pods'].format(namespace)}/{pod}/log", **asked).splitlines()

    def jobs(self, key: Key) -> Mapping[str, int]:
        """The Jobs of a resource by name, with how many pods each runs at once."""
        return {item["metadata"]["name"]: int(item["spec"].get("parallelism", 1)) for item in self.owned(key, "jobs")}

    def belonging(self, key: Key) -> tuple[Sequence[JSON], Sequence[JSON], Sequence[JSON]]:
        """The Jobs, pods and WorkerReports of a resource as the API server has them; hooks' Jobs are among them."""
        return self.owned(key, "jobs"), self.owned(key, "pods"), self.owned(key, "worker reports")

    def owned(self, key: Key, what: str) -> Sequence[JSON]:
        """Those of a resource's jobs, pods or worker reports; none where they may not be read, which is noted."""
        path = _OWNED[what].format(key.namespace)
        return self._allowed(what, lambda: list(self._owned(key, path))) or []

    def operators(self) -> Sequence[OperatorSeen] | None:
        """Every operator's Lease, wherever it stands; None where Leases may not be read."""
        path = "/apis/coordination.k8s.io/v1/leases"
        try:
            items = list(self.cluster.pages(path, fieldSelector=f"metadata.name={LEASE}"))
        except Forbidden:
            return None
        return [operator_seen(item, datetime.now(UTC)) for item in items]

    def kept_in_git(self, key: Key) -> str:
        """Who puts the resource back to what git says: Argo CD, Flux; empty where nobody is seen to."""
        return kept_in_git(self.document(key).get("metadata", {}))

    def _uid(self, key: Key) -> str:
        return str(self.document(key)["metadata"]["uid"])

    def _owned(self, key: Key, path: str) -> Iterator[JSON]:
        return self.cluster.pages(path, labelSelector=f"{UID}={self._uid(key)}")

    def _log(self, namespace: str, pod: str, lines: int) -> Sequence[str]:
        try:
            return self.log(namespace, pod, lines)
        except (NotFound, Refused) as error:
            return [f"(its log cannot be read: {error})"]

    def _allowed(self, what: str, read: Callable[[], _T]) -> _T | None:
        """What may be read; None, and a word in `withheld`, where the right is missing."""
        try:
            return read()
        except Forbidden:
            self.withheld.add(what)
            return None


def _folder(kind: str, namespace: str | None) -> str:
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{API_VERSION}{within}/{_PLURALS[kind]}"


def _path(key: Key) -> str:
    return f"{_folder(key.kind, key.namespace)}/{key.name}"


def _key(item: JSON) -> Key:
    return Key(item["metadata"]["namespace"], item["kind"], item["metadata"]["name"])


def _parsed(kind: str, item: JSON) -> Resource:
    try:
        return _MODELS[kind].model_validate(item)
    except ValidationError as error:
        names = sorted({".".join(str(part) for part in each["loc"]) for each in error.errors()})
        why = f"this whimbrel does not understand {', '.join(names[:5])}"
        todo = f"use the version of the operator; meanwhile: kubectl get {_PLURALS[kind]} -o yaml"
        raise Refused(f"the {kind} cannot be read", where=str(_key(item)), why=why, todo=todo) from None


def report_of(item: JSON) -> WorkerReport | None:
    """What a WorkerReport says; None where it says nothing yet, or nothing that this version understands. Pure."""
    try:
        return WorkerReport.model_validate(item["status"]) if item.get("status") else None
    except ValidationError:
        return None


def _event(item: JSON) -> RecordedEvent:
    """An event of either API: core/v1 gives both kinds, with series where one repeats."""
    series = item.get("series") or {}
    times = (series.get("lastObservedTime"), item.get("lastTimestamp"), item.get("eventTime"))
    made = item["metadata"]["creationTimestamp"]
    at = max(_moment(each) for each in (*times, made) if each)
    count = int(series.get("count") or item.get("count") or 1)
    return RecordedEvent(at, item.get("type", "Normal"), item.get("reason", ""), item.get("message", ""), count)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def operator_seen(lease: JSON, now: datetime) -> OperatorSeen:
    """What a Lease says at `now`. It is alive while it has a holder who renewed it within twice its length."""
    spec = lease.get("spec") or {}
    renewed = _moment(spec["renewTime"]) if spec.get("renewTime") else None
    patience = timedelta(seconds=2 * float(spec.get("leaseDurationSeconds") or 15))
    alive = bool(spec.get("holderIdentity")) and renewed is not None and now - renewed <= patience
    return OperatorSeen(lease["metadata"]["namespace"], spec.get("holderIdentity") or "", renewed, alive)


_KEEPERS: Final = (
    ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
    ("labels", "argocd.argoproj.io/instance", "Argo CD"),
    ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "helm.toolkit.fluxcd.io/name", "Flux"),
)


def kept_in_git(metadata: JSON) -> str:
    """Who puts an object of this metadata back to what git says; empty where nobody is seen to. Pure."""
    return next((who for kind, name, who in _KEEPERS if name in (metadata.get(kind) or {})), "")
