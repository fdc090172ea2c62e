"""Makes the control tables, registers the migration and makes the target's tables. Copies nothing."""

from whimbrel_api.migration import SchemaMode
from whimbrel_api.reports import Record

from whimbrel_worker.engine.ports import TableRow
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.values.columns import Table


def run(context: TaskContext) -> None:
    """All of it, each step safe to repeat."""
    record = prepare_control(context)
    tables, _ = context.source.discover()
    context.target.control().add_tables([TableRow(table.name, "Pending", table.rows_estimate) for table in tables])
    if context.file.schema_.mode is SchemaMode.CREATE_IF_MISSING:
        _create(context, tables)
    if record.last("schema-ready") is None:
        context.target.control().journal("schema-ready")
    context.report.update(record=context.target.control().record(), epoch=record.epoch)


def prepare_control(context: TaskContext) -> Record:
    """The control tables with this migration in them."""
    control = context.target.control()
    control.ensure()
    return control.register(context.source.identity())


def _create(context: TaskContext, tables: list[Table]) -> None:
    schema = context.target.schema()
    for done, table in enumerate(tables):
        context.check_stop()
        schema.create(table)
        context.report.update(tables_total=len(tables), tables_done=done + 1)
