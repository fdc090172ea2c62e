"""The schema `sys` in the real PostgreSQL, and the task that builds indexes and validates constraints there."""

from __future__ import annotations

import asyncio

from whimbrel_testbed.dsql.backend import Address, Backend
from whimbrel_testbed.dsql.limits import Limits
from whimbrel_testbed.dsql.sql import literal

_SCHEMA = r"""
CREATE ROLE admin LOGIN CREATEROLE;
GRANT ALL ON DATABASE postgres TO admin;
ALTER SCHEMA public OWNER TO admin;
CREATE SCHEMA sys;
CREATE TABLE sys.jobs (
  job_id text PRIMARY KEY, status text NOT NULL, details text, job_type text NOT NULL, class_id oid, object_id oid,
  object_name text, start_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  update_time timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE sys.standin_work (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job_id text NOT NULL, statement text NOT NULL);
GRANT USAGE ON SCHEMA sys TO PUBLIC;
GRANT SELECT ON sys.jobs TO PUBLIC;

CREATE FUNCTION sys.standin_qualified(relation regclass) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation
$$;

CREATE FUNCTION sys.standin_submit(kind text, relation regclass, work text)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE id text := substr(translate(md5(random()::text || clock_timestamp()), '01', 'yz'), 1, 26);
BEGIN
  INSERT INTO sys.jobs (job_id, status, job_type, class_id, object_id, object_name)
  VALUES (id, 'submitted', kind, 'pg_class'::regclass, relation, sys.standin_qualified(relation));
  INSERT INTO sys.standin_work (job_id, statement) VALUES (id, work);
  RETURN id;
END $$;

CREATE FUNCTION sys.standin_index_check(relation regclass, before text, after text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE kind text;
BEGIN
  IF (SELECT count(*) FROM pg_index WHERE indrelid = relation) >= {indexes} THEN
    RAISE EXCEPTION 'more than {indexes} indexes per table are not allowed' USING ERRCODE = '54000';
  END IF;
  EXECUTE format('CREATE TEMP TABLE standin_trial (LIKE %s) ON COMMIT DROP', sys.standin_qualified(relation));
  EXECUTE before || 'pg_temp.standin_trial' || after;
  SELECT format_type(a.atttypid, NULL) INTO kind FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indexrelid
  WHERE i.indrelid = 'pg_temp.standin_trial'::regclass AND a.attnum <= i.indnkeyatts
    AND format_type(a.atttypid, NULL) IN ('bytea', 'json', 'jsonb', 'interval', 'time with time zone') LIMIT 1;
  IF kind IS NOT NULL THEN
    RAISE EXCEPTION 'datatype % not supported in a key', kind USING ERRCODE = '0A000';
  END IF;
  DROP TABLE pg_temp.standin_trial;
END $$;

CREATE FUNCTION sys.standin_index_job(target text, before text, after text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE relation regclass := target::regclass;
BEGIN
  PERFORM sys.standin_index_check(relation, before, after);
  before := regexp_replace(before, '^(CREATE (UNIQUE )?INDEX )', '\1CONCURRENTLY ');
  RETURN sys.standin_submit('INDEX_BUILD', relation, before || sys.standin_qualified(relation) || after);
END $$;

CREATE FUNCTION sys.standin_validate_job(target text, before text, after text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE relation regclass := target::regclass;
BEGIN
  RETURN sys.standin_submit('VALIDATE_CONSTRAINT', relation, before || sys.standin_qualified(relation) || after);
END $$;

CREATE FUNCTION sys.standin_index_now(target text, before text, after text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE relation regclass; filled boolean;
BEGIN
  IF coalesce(current_setting('standin.disable_sync_create_index', true), '') NOT IN ('off', 'false', '0', 'no') THEN
    RAISE EXCEPTION 'unsupported mode. please use CREATE INDEX ASYNC.' USING ERRCODE = '0A000';
  END IF;
  relation := target::regclass;
  PERFORM sys.standin_index_check(relation, before, after);
  EXECUTE format('SELECT EXISTS (SELECT FROM %s)', sys.standin_qualified(relation)) INTO filled;
  IF filled THEN
    RAISE EXCEPTION 'unsupported mode. please use CREATE INDEX ASYNC.' USING ERRCODE = '0A000';
  END IF;
  EXECUTE before || sys.standin_qualified(relation) || after;
END $$;

CREATE FUNCTION sys.standin_large_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE kind text;
BEGIN
  SELECT format_type(a.atttypid, NULL) INTO kind
  FROM jsonb_each_text(to_jsonb(NEW)) AS f (name, value)
  JOIN pg_attribute a ON a.attrelid = TG_RELID AND a.attname = f.name
  WHERE octet_length(f.value) / CASE a.atttypid WHEN 'bytea'::regtype THEN 2 ELSE 1 END
    - CASE a.atttypid WHEN 'bytea'::regtype THEN 1 ELSE 0 END > {value} LIMIT 1;
  IF kind IS NOT NULL THEN
    RAISE EXCEPTION 'datatype limit greater than {value} bytes not supported for %', kind USING ERRCODE = '54000';
  ELSIF pg_column_size(NEW) > 2 * {value} THEN
    RAISE EXCEPTION 'row size limit of % bytes exceeded', 2 * {value} USING ERRCODE = '54000';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION sys.standin_after_ddl()
RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET client_min_messages = error AS $$
DECLARE made record;
BEGIN
  FOR made IN SELECT objid, object_identity FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
    EXECUTE format('CREATE TRIGGER standin_large_row BEFORE INSERT OR UPDATE ON %s FOR EACH ROW'
      ' WHEN (pg_column_size(NEW.*) > {value}) EXECUTE FUNCTION sys.standin_large_row()', made.object_identity);
  END LOOP;
  IF (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'sys')) > {tables} THEN
    RAISE EXCEPTION 'more than {tables} tables are not allowed' USING ERRCODE = '54000';
  END IF;
  IF (SELECT count(*) FROM pg_namespace
      WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'sys')) > {schemas} THEN
    RAISE EXCEPTION 'more than {schemas} schemas are not allowed' USING ERRCODE = '54000';
  END IF;
END $$;
CREATE EVENT TRIGGER standin_after_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE SCHEMA')
  EXECUTE FUNCTION sys.standin_after_ddl();

CREATE PROCEDURE sys.wait_for_job(id text) LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM sys.jobs WHERE job_id = id) THEN
    RAISE EXCEPTION 'job "%" does not exist', id USING ERRCODE = '42704';
  END IF;
END $$;
"""


class Jobs:
    """Runs submitted jobs one at a time."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def prepare(self, limits: Limits) -> None:
        """Make the role `admin`, the schema `sys` and the limits that need a look inside, in a fresh PostgreSQL."""
        numbers = {
            "{indexes}": limits.indexes_per_table, "{value}": limits.value_bytes, "{tables}": limits.tables,
            "{schemas}": limits.schemas,
        }  # fmt: skip
        schema = _SCHEMA
        for name, number in numbers.items():
            schema = schema.replace(name, str(number))
        connection = await Backend.connect(self._address, {})
        try:
            await connection.execute(schema)
        finally:
            connection.close()

    def submitted(self) -> None:
        """Say that a transaction with a job has committed."""
        self._idle.clear()
        self._wake.set()

    async def finished(self) -> None:
        """Wait until no job is left to do."""
        await self._idle.wait()

    async def work(self) -> None:
        """Run jobs until cancelled."""
        connection = await Backend.connect(self._address, {"application_name": "stand-in jobs"})
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._run_all(connection)
                if not self._wake.is_set():
                    self._idle.set()
        finally:
            connection.close()

    async def _run_all(self, connection: Backend) -> None:
        for job, statement in await connection.execute(
            "SELECT job_id, statement FROM sys.standin_work ORDER BY position"
        ):
            await self._state(connection, job, "processing", "")
            try:
                await connection.execute(statement)
            except RuntimeError as error:
                await self._state(connection, job, "failed", str(error))
            else:
                await self._state(connection, job, "completed", "")
            await connection.execute(f"DELETE FROM sys.standin_work WHERE job_id = {literal(job)}")

    @staticmethod
    async def _state(connection: Backend, job: str, status: str, details: str) -> None:
        await connection.execute(
            f"UPDATE sys.jobs SET status = {literal(status)}, details = nullif({literal(details)}, ''),"
            f" update_time = clock_timestamp() WHERE job_id = {literal(job)}"
        )
