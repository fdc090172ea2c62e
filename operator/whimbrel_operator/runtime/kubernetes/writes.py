"""What is written to a cluster for one task, in which order. What ought to be there is decided by runtime and specs.

WorkerReports are made before all else of a task and deleted after all else: whatever is left of a task shows by them,
so that a crash between any two requests leaks nothing.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from whimbrel_api.worker_reports import Failures
from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.domain.hook_jobs import WantedHook
from whimbrel_operator.domain.observed import TaskState
from whimbrel_operator.errors import Outdated, Refused
from whimbrel_operator.runtime.kubernetes import kinds
from whimbrel_operator.runtime.kubernetes.api import JSON, Api
from whimbrel_operator.runtime.kubernetes.observe.look import TaskObjects
from whimbrel_operator.runtime.kubernetes.observe.objects import COUNTED, STARTED, Job, Report
from whimbrel_operator.specs import hooks, jobs, names, reports
from whimbrel_operator.specs.bundle import Bundle, bundle
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import PodSettings

_REPORT_KIND: Final = "WorkerReport"
_BINDING_KIND: Final = "RoleBinding"
_FILE_KIND: Final = "ConfigMap"


class Writer:
    """Writes the objects of tasks. Every method may be repeated, and then changes nothing."""

    def __init__(self, api: Api, settings: PodSettings) -> None:
        self._api, self._settings = api, settings

    async def start(self, owner: Owner, task: TaskObjects, wanted: Sequence[WantedTask], now: datetime) -> None:
        """Make a task that has no Job: its reports without a former word, then its rights, at last the Job."""
        told = bundle(owner, wanted, self._settings)
        await self.end_strays(task)
        await self._prepare_reports(owner, task, told)
        await self._apply_all(told, but=(_REPORT_KIND,))
        await self._create_job(owner, told, now)

    async def scale(self, owner: Owner, task: TaskObjects, job: Job, wanted: Sequence[WantedTask]) -> None:
        """Give a running Job another number of pods. Those that come find their rights, those that go keep them."""
        told = bundle(owner, wanted, self._settings)
        if told.count > job.count:
            await self._prepare_reports(owner, task, told)
        await self._apply_all(told, but=(_REPORT_KIND,) if told.count > job.count else (_REPORT_KIND, "Role"))
        await self._api.merge(kinds.JOBS, owner.namespace, job.name, jobs.scale(told.count))

    async def shed(self, owner: Owner, surplus: Sequence[Report], wanted: Sequence[WantedTask]) -> None:
        """Take away the reports of instances that are gone, after the rights to them."""
        told = bundle(owner, wanted, self._settings)
        await self._apply(each for each in told.before if each["kind"] == "Role")
        await self._remove_reports(owner.namespace, surplus)

    async def order(self, owner: Owner, task: TaskObjects, wanted: Sequence[WantedTask]) -> None:
        """Write the orders of those instances that have others, or no report any more."""
        held = {report.index: report.spec.orders for report in task.reports}
        await self._apply(
            reports.orders_report(owner, each) for each in wanted if held.get(each.ref.index) != each.orders
        )

    async def repair(self, owner: Owner, wanted: Sequence[WantedTask]) -> None:
        """Make anew what somebody took from a running task: without its rights it is mute, without its file it cannot
        start. A file that is there stays: an older worker need not know a newer one's."""
        told = bundle(owner, wanted, self._settings)
        await self._apply_all(told, but=(_REPORT_KIND, _FILE_KIND))
        for body in told.before:
            if body["kind"] == _FILE_KIND:
                with contextlib.suppress(Outdated):
                    await self._api.create(kinds.CONFIG_MAPS, body)

    async def remember(self, owner: Owner, job: Job, states: Iterable[TaskState]) -> None:
        """Write the failures of a Job into the WorkerReports, before it goes."""
        bodies = [_failures(owner, job, state) for state in states]
        await asyncio.gather(
            *(self._api.apply(kinds.WORKER_REPORTS, body, reports.FAILURES_MANAGER) for body in bodies)
        )

    async def end(self, owner: Owner, job: Job) -> None:
        """Delete a Job: it is gone only after its pods, which are told to stop and have their time for it."""
        if not job.deleting:
            await self._api.delete(kinds.JOBS, owner.namespace, job.name, uid=job.uid, foreground=True)

    async def end_strays(self, task: TaskObjects) -> None:
        """Delete pods that no Job holds: somebody deleted their Job and left them alone."""
        going = [pod.name for pod in task.strays if pod.deleting is None]
        await asyncio.gather(*(self._api.delete(kinds.PODS, task.namespace, name) for name in going))

    async def forget(self, owner: Owner, task: TaskObjects) -> None:
        """Delete what a task without a Job has left, its reports last."""
        await self.end_strays(task)
        if any(pod.ended is None for pod in task.strays):
            return
        name = names.job_name(owner, task.task_id)
        await asyncio.gather(*(self._api.delete(kind, owner.namespace, name) for kind in kinds.NAMED_AS_THE_JOB))
        await self._remove_reports(owner.namespace, task.reports)

    async def start_hook(self, owner: Owner, wanted: WantedHook) -> None:
        """Make the Job of a hook or switch, under the account that the user names."""
        body = hooks.job(owner, wanted.run, self._settings)
        try:
            await self._api.create(kinds.JOBS, body)
        except Outdated:
            await self._check_own(owner, body["metadata"]["name"])

    async def end_hook(self, owner: Owner, run_id: str) -> None:
        """Delete the Job of a hook or switch; it is gone only after its pod."""
        await self.end_job(owner.namespace, names.job_name(owner, run_id))

    async def end_job(self, namespace: str, name: str) -> None:
        """Delete a Job by its name; it is gone only after its pod."""
        await self._api.delete(kinds.JOBS, namespace, name, foreground=True)

    async def _prepare_reports(self, owner: Owner, task: TaskObjects, told: Bundle) -> None:
        """A report for each instance. A former worker's word goes, as nobody could tell it from the new one's."""
        bodies = {each["metadata"]["name"]: each for each in told.before if each["kind"] == _REPORT_KIND}
        first = 0 if task.job is None else task.job.count
        known = {report.name: report for report in task.reports if report.index >= first}
        await asyncio.gather(*(self._fresh_report(owner, known.get(name), body) for name, body in bodies.items()))
        await self._remove_reports(owner.namespace, [each for name, each in known.items() if name not in bodies])

    async def _fresh_report(self, owner: Owner, known: Report | None, body: JSON) -> None:
        name = body["metadata"]["name"]
        await self._api.apply(kinds.WORKER_REPORTS, body)
        if known is not None and known.spoken:
            await self._api.merge(kinds.WORKER_REPORTS, owner.namespace, name, {"status": None}, "status")
        if known is not None and known.counted:
            kept = {"metadata": {"annotations": {COUNTED: None}}}
            await self._api.merge(kinds.WORKER_REPORTS, owner.namespace, name, kept)

    async def _apply_all(self, told: Bundle, but: Sequence[str]) -> None:
        """All but some kinds and the Job. A Role comes before its binding: who binds it must have the rights in it."""
        bodies = [each for each in told.before if each["kind"] not in but]
        await self._apply(each for each in bodies if each["kind"] != _BINDING_KIND)
        await self._apply(each for each in bodies if each["kind"] == _BINDING_KIND)

    async def _apply(self, bodies: Iterable[JSON]) -> None:
        await asyncio.gather(*(self._api.apply(kinds.kind_of(body), body) for body in bodies))

    async def _create_job(self, owner: Owner, told: Bundle, now: datetime) -> None:
        meta = told.job["metadata"]
        stamped = {**told.job, "metadata": {**meta, "annotations": {**meta["annotations"], STARTED: now.isoformat()}}}
        try:
            await self._api.create(kinds.JOBS, stamped)
        except Outdated:
            await self._check_own(owner, told.name)

    async def _check_own(self, owner: Owner, name: str) -> None:
        """A Job that is there already is ours, made by a request whose answer was lost; or a stranger's."""
        found = await self._api.get(kinds.JOBS, owner.namespace, name)
        if found is not None and (found["metadata"].get("labels") or {}).get(names.UID) != owner.uid:
            raise Refused(
                f"a Job that is not Whimbrel's has the name {name}",
                where=f"namespace {owner.namespace}",
                todo=f"rename or delete it: kubectl -n {owner.namespace} delete job {name}",
            )

    async def _remove_reports(self, namespace: str, gone: Iterable[Report]) -> None:
        await asyncio.gather(*(self._api.delete(kinds.WORKER_REPORTS, namespace, each.name) for each in gone))


def _failures(owner: Owner, job: Job, state: TaskState) -> JSON:
    """The failures of an instance for its report; marked with the Job if that one's end was a failure."""
    told = Failures(count=state.failures, last_at=state.last_failure_at, last_error=state.last_error)
    body = reports.failures_report(owner, state.kind, state.ref, told)
    marked = {COUNTED: job.uid} if state.failed else {}
    body["metadata"]["annotations"] |= {**marked, names.GENERATION: str(state.generation)}
    return body
