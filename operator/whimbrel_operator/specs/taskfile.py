"""Task files from wanted tasks. Where the files lie is the runtime's business."""

from collections.abc import Mapping

from whimbrel_api.tasks import TaskFile
from whimbrel_operator.domain.decision import WantedTask


def task_file(
    wanted: WantedTask,
    *,
    secrets: Mapping[str, str],
    report_file: str,
    orders_file: str,
    check_file: str,
    interval: float,
) -> TaskFile:
    """All that the worker of a wanted task needs. `secrets`: Secret name → directory; `interval` in seconds."""
    work = wanted.work
    return TaskFile(
        task=wanted.kind,
        task_id=wanted.ref.task_id,
        migration=work.migration,
        index=wanted.ref.index,
        workers=wanted.workers,
        epoch=wanted.epoch,
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
        secrets=dict(secrets),
        report_file=report_file,
        orders_file=orders_file,
        report_interval=interval,
    )
