"""A Migration on a real cluster whose operators come through proxies that break things, and who writes down what was.

The ledger watches the API server itself, past every fault. Which fault strikes when stands in the tests.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import kubernetes
from urllib3.exceptions import HTTPError

from support.chart_account import ACCOUNT, chart_account
from support.cluster_run import NAME, WAIT_SECONDS, ClusterRun, MigrationRun
from support.live_run import ORDER
from support.operator_forge import Forge, ForkedOperator
from whimbrel_api.base import GROUP, VERSION
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_testbed.kubernetes.api_proxy import ApiProxy, Asked, api_proxy

QUICK = {
    "snapshot": {"workers": 1, "chunkRows": 500},
    "stream": {"flushInterval": "50ms"},
    "cutover": {"mode": "Automatic"},
}
"""A life without a person in it, and with little to copy."""

LEASE = {
    "WHIMBREL_LEASE_DURATION": "15s",
    "WHIMBREL_LEASE_RENEW_DEADLINE": "10s",
    "WHIMBREL_LEASE_RETRY_PERIOD": "2s",
}
"""As the operator has them by itself: a busy machine must not cost it the Lease."""
SHORT_LEASE = {
    "WHIMBREL_LEASE_DURATION": "8s",
    "WHIMBREL_LEASE_RENEW_DEADLINE": "7s",
    "WHIMBREL_LEASE_RETRY_PERIOD": "500ms",
}

_POLL = 0.02


Listed = Callable[..., Any]
Note = Callable[[str, dict[str, Any]], None]


@dataclass
class Ledger:
    """All that the API server has told of a namespace, in its order: phases, Jobs and pods from their begin to end."""

    namespace: str
    api: kubernetes.client.ApiClient
    phases: list[str] = field(default_factory=list)
    alive: dict[str, set[str]] = field(default_factory=dict)
    jobs: dict[str, list[str]] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)
    ways_back: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _one: threading.Lock = field(default_factory=threading.Lock)
    """Held by the thread that notes something: each kind is watched by one of its own."""

    @contextmanager
    def kept(self) -> Iterator[Ledger]:
        custom, core = kubernetes.client.CustomObjectsApi(self.api), kubernetes.client.CoreV1Api(self.api)
        batch = kubernetes.client.BatchV1Api(self.api)
        watched: list[tuple[Listed, tuple[str, ...], Note]] = [
            (custom.list_namespaced_custom_object, (GROUP, VERSION, self.namespace, "migrations"), self._migration),
            (custom.list_namespaced_custom_object, (GROUP, VERSION, self.namespace, "reversesyncs"), self._way_back),
            (batch.list_namespaced_job, (self.namespace,), self._job),
            (core.list_namespaced_pod, (self.namespace,), self._pod),
        ]
        threads = [threading.Thread(target=self._watch, args=each) for each in watched]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _watch(self, listed: Listed, place: tuple[str, ...], note: Note) -> None:
        """Listed once, then each event; listed again where an API server has begun anew and knows no former event."""
        version = ""
        while not self._stop.is_set():
            try:
                version = version or self._list(listed, place, note)
                for event in kubernetes.watch.Watch().stream(
                    listed, *place, resource_version=version, timeout_seconds=1, _request_timeout=(2, 5)
                ):
                    with self._one:
                        note(event["type"], event["raw_object"])
                    version = event["raw_object"]["metadata"]["resourceVersion"]
            except kubernetes.client.ApiException as error:
                version = "" if error.status == 410 else version
                self._stop.wait(0.1)
            except HTTPError:
                self._stop.wait(0.1)

    def _list(self, listed: Listed, place: tuple[str, ...], note: Note) -> str:
        found = json.loads(listed(*place, _preload_content=False, _request_timeout=(2, 5)).data)
        there = {each["metadata"]["uid"] for each in found["items"]}
        told = "Job" if note == self._job else "pod"
        with self._one:
            for what, uids in self.alive.items():
                if what.startswith(told) and note in (self._job, self._pod):
                    uids.intersection_update(there)
            for each in found["items"]:
                note("ADDED", each)
        return str(found["metadata"]["resourceVersion"])

    def _migration(self, kind: str, body: dict[str, Any]) -> None:
        phase = body.get("status", {}).get("phase", "Pending")
        if kind != "DELETED" and body["metadata"]["name"] == NAME and self.phases[-1:] != [phase]:
            self.phases.append(phase)

    def _way_back(self, _: str, body: dict[str, Any]) -> None:
        if body["metadata"]["uid"] not in self.ways_back:
            self.ways_back.append(body["metadata"]["uid"])

    def _job(self, kind: str, body: dict[str, Any]) -> None:
        meta = body["metadata"]
        task = f"Job of {meta['labels'].get('whimbrel.dev/task')}"
        if meta["uid"] not in self.jobs.setdefault(task, []):
            self.jobs[task].append(meta["uid"])
        self._lives(task, meta["uid"], lives=kind != "DELETED")

    def _pod(self, kind: str, body: dict[str, Any]) -> None:
        meta = body["metadata"]
        index = meta["labels"].get("batch.kubernetes.io/job-completion-index", "?")
        work = f"pod {index} of {meta['labels'].get('whimbrel.dev/task')}"
        runs = body.get("status", {}).get("phase") == "Running"
        self._lives(work, meta["uid"], lives=runs and kind != "DELETED")

    def _lives(self, what: str, uid: str, *, lives: bool) -> None:
        here = self.alive.setdefault(what, set())
        here.add(uid) if lives else here.discard(uid)
        if len(here) > 1:
            self.doubled.append(f"{what}: {len(here)} at a time")
        if all(self._runs(task) for task in ("stream", "reverse")):
            self.doubled.append(f"{what}: changes flow in both directions")

    def _runs(self, task: str) -> bool:
        return any(uids for what, uids in self.alive.items() if what.startswith("pod") and what.endswith(f" of {task}"))

    def skipped(self) -> list[str]:
        """Phases as they were, if they are no walk through the life's order, step by step; empty where they are."""
        order = [each.value for each in ORDER if each is not Phase.CANCELLED]
        begun = self.phases if self.phases[:1] == ["Pending"] else ["Pending", *self.phases]
        return [] if begun == order[: len(begun)] else self.phases

    def again(self) -> dict[str, int]:
        """Tasks that had more than one Job, one after the other."""
        return {task: len(uids) for task, uids in self.jobs.items() if len(uids) > 1}

    def figures(self) -> str:
        return f"{sum(map(len, self.jobs.values()))} Jobs of {len(self.jobs)} tasks, more than one: {self.again()}"


class Faulty(MigrationRun):
    """Operators behind proxies of their own, a supervisor that starts them again, and a ledger."""

    forge: Forge
    ledger: Ledger
    stack: ExitStack

    def prepare(self, maker: Forge, stack: ExitStack) -> None:
        """Secrets and an account with the chart's rights, the ledger; no operator yet, and no Migration."""
        self.forge, self.stack = maker, stack
        settings = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(str(self.cluster.kubeconfig), client_configuration=settings)
        self.api = kubernetes.client.ApiClient(settings)
        self.give_secrets()
        self._token = chart_account(self.kubectl, self.namespace)
        self.ledger = stack.enter_context(Ledger(self.namespace, self.api).kept())

    def operator_behind(self, **environment: str) -> tuple[ForkedOperator, ApiProxy]:
        """One more operator that is not started, behind a proxy of its own."""
        proxy = self.stack.enter_context(api_proxy(self.cluster))
        number = len(list(self.tasks.directory.glob("proxy-*")))
        kubeconfig = proxy.kubeconfig(self.tasks.directory / f"proxy-{number}", self._token)
        file = self.tasks.directory / f"operator-{number}.log"
        told = {"KUBECONFIG": str(kubeconfig), **LEASE, **environment}
        made = ForkedOperator(self.forge, self.cluster, self.namespace, file, told)
        self.stack.callback(made.kill)
        return made, proxy

    def lease_elsewhere(self) -> str:
        """A second namespace where the same account may keep a Lease: whose holder knows nothing of the first's."""
        name = f"{self.namespace}-b"
        self.cluster.kubectl("create", "namespace", name)
        self.stack.callback(self.cluster.kubectl, "delete", "namespace", name, "--wait=false")
        verbs, who = "--verb=get,create,update", f"--serviceaccount={self.namespace}:{ACCOUNT}"
        self.cluster.kubectl("-n", name, "create", "role", "lease", verbs, "--resource=leases.coordination.k8s.io")
        self.cluster.kubectl("-n", name, "create", "rolebinding", "lease", "--role=lease", who)
        return name

    def left(self) -> list[str]:
        """As before, without the operator's own account."""
        return [each for each in super().left() if not each.endswith(f" {ACCOUNT}")]

    def free_lease(self) -> None:
        """As if the Lease of a dead operator had run out."""
        try:
            kubernetes.client.CoordinationV1Api(self.api).delete_namespaced_lease("whimbrel-operator", self.namespace)
        except kubernetes.client.ApiException as error:
            if error.status != 404:
                raise

    def holder(self) -> str:
        """Who holds the Lease; empty when nobody does."""
        found: Any = kubernetes.client.CoordinationV1Api(self.api).read_namespaced_lease(
            "whimbrel-operator", self.namespace
        )
        return str(found.spec.holder_identity or "")

    @contextmanager
    def supervised(self, operator: ForkedOperator, born: Callable[[], None] = lambda: None) -> Iterator[list[float]]:
        """Start the operator, and again whenever it has ended, as the kubelet does; gives the times of its starts."""
        stop, starts = threading.Event(), list[float]()

        def work() -> None:
            while not stop.wait(_POLL):
                if not operator.alive:
                    born()
                    starts.append(time.monotonic())
                    operator.start()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield starts
        finally:
            stop.set()
            thread.join()

    def through(self, proxy: ApiProxy) -> Callable[[Asked], bytes]:
        """A rewrite that sends the workers of new Jobs through this proxy, as an admission webhook might."""
        variables = [
            {"name": "KUBERNETES_SERVICE_HOST", "value": "127.0.0.1"},
            {"name": "KUBERNETES_SERVICE_PORT", "value": str(proxy.port)},
        ]

        def rewrite(asked: Asked) -> bytes:
            if asked.method != "POST" or not asked.path.endswith("/jobs"):
                return asked.body
            job = json.loads(asked.body)
            for container in job["spec"]["template"]["spec"]["containers"]:
                container["env"] = [*container.get("env", []), *variables]
            return json.dumps(job).encode()

        return rewrite


class FaultyRun(Faulty, ClusterRun):
    """The same from MySQL."""

    def until(self, holds: Callable[[MigrationStatus], bool], seconds: float = WAIT_SECONDS) -> MigrationStatus:
        """As before; what runs twice or skips a phase is told at once."""

        def told(status: MigrationStatus) -> bool:
            assert not self.ledger.doubled, self.ledger.doubled
            assert not self.ledger.skipped(), self.ledger.skipped()
            return holds(status)

        return super().until(told, seconds)

    def assert_sound(self, tables: list[str]) -> None:
        """What must hold after every fault."""
        assert self.ledger.doubled == []
        assert self.ledger.skipped() == []
        assert self.differences(tables) == []
