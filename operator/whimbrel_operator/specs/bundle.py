"""All objects of one task, in the order in which they must be there. How they get there is the runtime's business."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.specs import access, jobs, names, reports, taskfile
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import PodSettings


@dataclass(frozen=True)
class Bundle:
    """What a task needs on a cluster. All is applied as `names.FIELD_MANAGER`.

    No Job there: `objects`. One of the same fingerprint that has not ended: `beside(job)`, then, where its number of
    pods is another, the merge patch `jobs.scale(count)`. One of another fingerprint: it is removed first and nothing is
    applied until it is gone, or its next pod would read what is meant for its successor. A template never changes.
    """

    name: str
    fingerprint: str
    count: int
    before: tuple[dict[str, Any], ...]
    job: dict[str, Any]

    @property
    def objects(self) -> tuple[dict[str, Any], ...]:
        """All of them, the Job last: its pods need the others."""
        return (*self.before, self.job)

    def beside(self, job: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """What a running Job takes as it runs: orders, rights, and what its next pod reads.

        Pods of another image keep the task file that they were made with: an older worker need not know a newer one's.
        Pods that run as another account keep that one and its binding.
        """
        kept = ["ConfigMap"] if _image(job) != _image(self.job) else []
        if _account(job) != _account(self.job):
            kept += ["ServiceAccount", "RoleBinding"]
        return tuple(each for each in self.before if each["kind"] not in kept)

    @property
    def report_names(self) -> tuple[str, ...]:
        """The WorkerReports that the task shall have, by index."""
        return tuple(names.report_name(self.name, index) for index in range(self.count))


def _image(job: Mapping[str, Any]) -> str:
    return str(job["spec"]["template"]["spec"]["containers"][0]["image"])


def _account(job: Mapping[str, Any]) -> str:
    return str(job["spec"]["template"]["spec"]["serviceAccountName"])


def bundle(owner: Owner, wanted: Sequence[WantedTask], settings: PodSettings) -> Bundle:
    """The objects of a task from all its wanted instances. Raises TaskTooLarge."""
    first = _alike(wanted)
    return Bundle(
        name=names.job_name(owner, first.ref.task_id),
        fingerprint=jobs.fingerprint(first),
        count=len(wanted),
        before=(
            taskfile.config_map(owner, first),
            *([] if settings.account else [access.service_account(owner, first, settings)]),
            *(reports.orders_report(owner, each) for each in wanted),
            access.role(owner, wanted),
            access.role_binding(owner, first, settings),
        ),
        job=jobs.job(owner, wanted, settings),
    )


def _alike(wanted: Sequence[WantedTask]) -> WantedTask:
    """The first instance. All pods of a Job read one task file, so they must want the same: ValueError."""
    told = {(each.kind, each.ref.task_id, each.workers, each.epoch, each.fingerprint) for each in wanted}
    if len(told) != 1 or [each.ref.index for each in wanted] != list(range(len(wanted))):
        refs = ", ".join(str(each.ref) for each in wanted)
        raise ValueError(f"no instances of one task with indexes from 0 on: {refs or 'none at all'}")
    return wanted[0]
