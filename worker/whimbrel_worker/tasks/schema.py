"""Makes the control tables, registers the migration and makes the target's tables and, later, their indexes."""

from whimbrel_api.migration import SchemaMode
from whimbrel_api.reports import Record
from whimbrel_api.tasks import SchemaStage
from whimbrel_worker.engine.ports import TableRow
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.sharding import keep_start
from whimbrel_worker.values.columns import Table


def run(context: TaskContext) -> None:
    """One stage, each step of it safe to repeat."""
    if context.file.schema_stage is SchemaStage.INDEXES:
        _make_indexes(context)
    else:
        _make_tables(context)


def _make_tables(context: TaskContext) -> None:
    record = prepare_control(context)
    tables, _ = context.source.discover()
    context.target.control().add_tables([TableRow(table.name, "Pending", table.rows_estimate) for table in tables])
    if context.file.schema_.mode is not SchemaMode.EXISTING:
        _create(context, tables)
    keep_start(context, tables)
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


def _make_indexes(context: TaskContext) -> None:
    """A table whose index cannot be made is stopped: its rows contend for a value that the source holds once."""
    control, schema = context.target.control(), context.target.schema()
    if not (record := control.record()).exists:
        context.report.update(record=record)
        return
    tables, _ = context.source.discover()
    stopped = {row.name for row in control.tables() if row.state == "Stopped"}
    for done, table in enumerate(tables):
        context.check_stop()
        if table.name not in stopped and context.file.schema_.mode is not SchemaMode.EXISTING:
            try:
                schema.create_indexes(table)
            except Incompatible as error:
                control.set_table(table.name, "Stopped", str(error))
        context.report.update(tables_total=len(tables), tables_done=done + 1)
    if control.record().last("indexes-ready") is None:
        control.journal("indexes-ready")
    context.report.update(record=control.record())
