"""Task files from wanted tasks, for this machine and for a cluster. Where they lie is the runtime's business."""

from collections.abc import Mapping
from typing import Any, Final

from whimbrel_api.tasks import ReportResource, TaskFile, TaskKind
from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.errors import TaskTooLarge
from whimbrel_operator.specs import names
from whimbrel_operator.specs.names import Owner

TASK_FILE: Final = "task.json"
MOST_BYTES: Final = 1024 * 1024
SPOOL_FOLDER: Final = "/var/lib/whimbrel/spool"
STREAM_INTERVAL: Final = 2.0
OTHER_INTERVAL: Final = 10.0
_CHECK_FILE = "../../../tmp/differences.jsonl"


def task_file(
    wanted: WantedTask,
    *,
    secrets: Mapping[str, str],
    report_file: str,
    orders_file: str,
    check_file: str,
    interval: float,
    spool: str = "",
) -> TaskFile:
    """All that the worker of a wanted task needs. `secrets`: Secret name → directory; `interval` in seconds.

    `spool`: where the task's own volume for changes is, for a task that has one.
    """
    work = wanted.work
    return TaskFile(
        task=wanted.kind,
        task_id=wanted.ref.task_id,
        migration=work.migration,
        index=wanted.ref.index,
        workers=wanted.workers,
        epoch=wanted.epoch,
        look_only=wanted.look_only,
        mode=work.mode,
        source=work.source,
        target=work.target,
        tables=work.tables,
        schema=work.schema,
        schema_stage=wanted.schema_stage,
        snapshot=work.snapshot,
        stream=work.stream,
        check=wanted.check.model_copy(update={"report_file": wanted.check.report_file or check_file}),
        freeze=wanted.freeze,
        fence=wanted.fence,
        reverse=wanted.reverse,
        proof=wanted.proof,
        writers=wanted.writers,
        secrets=dict(secrets),
        report_file=report_file,
        orders_file=orders_file,
        report_interval=interval,
        spool=spool if wanted.spool_claim else "",
        collect=wanted.collect,
    )


def report_interval(kind: TaskKind) -> float:
    """Seconds between two words of a worker on a cluster."""
    return STREAM_INTERVAL if kind in (TaskKind.STREAM, TaskKind.REVERSE) else OTHER_INTERVAL


def cluster_task_file(owner: Owner, wanted: WantedTask) -> TaskFile:
    """What all pods of a task read; paths are relative to the file's own folder, an index comes by the environment."""
    told = task_file(
        wanted,
        secrets={name: f"../secrets/{name}" for name in wanted.work.secret_names()},
        report_file="",
        orders_file="",
        check_file=_CHECK_FILE,
        interval=report_interval(wanted.kind),
        spool=SPOOL_FOLDER,
    )
    name = names.job_name(owner, wanted.ref.task_id)
    resource = ReportResource(namespace=owner.namespace, name=name, access="../access")
    return told.model_copy(update={"index": 0, "report_resource": resource})


def config_map(owner: Owner, wanted: WantedTask) -> dict[str, Any]:
    """The ConfigMap with a task's file. Raises TaskTooLarge: Kubernetes keeps no more than a mebibyte in one."""
    text = cluster_task_file(owner, wanted).model_dump_json(by_alias=True, indent=2) + "\n"
    task_id = wanted.ref.task_id
    if (size := len(text.encode())) > MOST_BYTES - len(TASK_FILE):
        raise TaskTooLarge(
            f"the {task_id} task cannot be told to its pods: its task file has {size:,} bytes",
            where=f"{owner.kind} {owner.namespace}/{owner.name}",
            why=f"a ConfigMap holds at most {MOST_BYTES:,}",
            todo="shorten spec.tables: use globs in include and exclude, and fewer overrides,"
            " or move the tables by several resources",
        )
    annotated = names.annotations(owner, wanted.fingerprint, wanted.generation)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(
            owner, names.job_name(owner, task_id), names.labels(owner, task_id, wanted.kind), annotated
        ),
        "data": {TASK_FILE: text},
    }
