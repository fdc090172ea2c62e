"""A cluster as the place where the commands find resources, with what a person is told there: kubectl's commands."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from whimbrel_cli.cluster_logs import ClusterLogs
from whimbrel_cli.drawing import hidden_line
from whimbrel_cli.figures import ago, span
from whimbrel_cli.guidance import Caller, Resource, finished
from whimbrel_cli.logbook import LogSource
from whimbrel_cli.pieces import Piece, of_jobs
from whimbrel_operator.runtime.cluster_access import Cluster
from whimbrel_operator.runtime.cluster_store import ClusterStore, OperatorSeen
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.resources import Resources
from whimbrel_operator.specs.names import LEASE

_MANY_JOBS = 6


class ClusterPlace:
    """A cluster, on which the operator works."""

    start = "kubectl apply -f FILE"
    every = 1.0

    def __init__(self, store: ClusterStore, prefix: str) -> None:
        self._store = store
        self.caller = Caller(prefix, store.cluster.namespace)

    @property
    def store(self) -> Resources:
        """The resources of the cluster."""
        return self._store

    def all(self, namespace: str | None, *, everywhere: bool, kind: str | None = None) -> Sequence[Resource]:
        """The resources of a namespace, by default the context's; of all where so asked."""
        return self._store.resources(kind, None if everywhere else namespace or self.caller.namespace)

    def document(self, key: Key) -> dict[str, Any]:
        """The resource as the API server has it."""
        return self._store.document(key)

    def whereabouts(self, key: Key) -> Iterator[str]:
        """The commands that show the logs, whether an operator works on this cluster, and what was not shown."""
        jobs = self._store.jobs(key)
        for number, (name, pods) in enumerate(list(jobs.items())[:_MANY_JOBS]):
            all_of_them = " --all-pods --prefix" if pods > 1 else ""
            yield f"{'Logs' if number == 0 else '':<9}kubectl logs -n {key.namespace} job/{name}{all_of_them}"
        if not finished(self._store.get(key)) and (idle := idleness(self._store.operators(), datetime.now(UTC))):
            yield f"Idle     {idle}"
        if hidden := hidden_line(self._store.withheld):
            yield hidden

    def kept_in_git(self, key: Key) -> str:
        """Argo CD or Flux, by the marks that they leave."""
        return self._store.kept_in_git(key)

    def pieces(self, key: Key) -> Sequence[Piece]:
        """Its Jobs, with their pods and WorkerReports."""
        return of_jobs(*self._store.belonging(key))

    def hidden(self) -> Sequence[str]:
        """What this account may not read."""
        return sorted(self._store.withheld)

    def logs(self, key: Key) -> LogSource:
        """The logs of its pods."""
        return ClusterLogs(self._store, key)

    def difference_files(self, key: Key, task: str) -> Sequence[Path]:
        """None: they go with the worker's pod."""
        del key, task
        return ()


def idleness(operators: Sequence[OperatorSeen] | None, now: datetime) -> str:
    """Why nobody works on a cluster, and what to look at; empty where an operator does, or where nobody may say."""
    if operators is None or any(each.alive for each in operators):
        return ""
    if not operators:
        return f"no operator works on this cluster: no namespace has a Lease {LEASE}"
    last = max(operators, key=lambda each: each.renewed_at or datetime.min.replace(tzinfo=UTC))
    when = f"last renewed {span(ago(last.renewed_at, now))} ago" if last.renewed_at else "never renewed"
    return f"no operator holds the Lease {LEASE} ({when}); look: kubectl get pods -n {last.namespace}"


def cluster_place(kubeconfig: Path | None, context: str | None, prefix: str) -> ClusterPlace:
    """The cluster that kubectl would use, or the one named. Raises NoCluster."""
    return ClusterPlace(ClusterStore(Cluster(kubeconfig, context)), prefix)
