"""The check task against real servers: damage is found, and nothing else."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.targets import TargetCase
from whimbrel_api.base import SecretKeyRef, SecretRef, Tls
from whimbrel_api.endpoints import MySQLSource as MySQLSpec
from whimbrel_api.endpoints import PostgreSQLTarget, Source, Target
from whimbrel_api.migration import CheckResult, Tables
from whimbrel_api.reports import CheckReport
from whimbrel_api.tasks import CheckOptions, CheckScope, TaskFile, TaskKind
from whimbrel_api.validation import Recheck, Report
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_worker.engine.ports import Source as SourcePort
from whimbrel_worker.engine.ports import TableRow
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.reporting.files import FileMailbox, FileSink
from whimbrel_worker.reporting.reporter import OrderBook, Reporter
from whimbrel_worker.tasks import check
from whimbrel_worker.tasks.context import Stopped, TaskContext
from whimbrel_worker.tasks.sources import build_source
from whimbrel_worker.values.columns import Table

MIGRATION = "default/check"
TABLES = (
    "CREATE TABLE numbers (id INT PRIMARY KEY, a VARCHAR(20), b VARCHAR(20), d DECIMAL(10,2), f FLOAT, g DOUBLE,"
    " t DATETIME(6), ts TIMESTAMP(3) NULL, h TIME(3), bin VARBINARY(20), y YEAR, day DATE)",
    "CREATE TABLE pairs (k1 INT, k2 DATETIME(3), note TEXT, PRIMARY KEY (k1, k2))",
    "CREATE TABLE words (code VARCHAR(20) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, value TEXT)",
    "CREATE TABLE nothing (id INT PRIMARY KEY, a TEXT)",
)
ROWS = (
    "INSERT INTO {}.numbers VALUES"
    " (1, 'one', NULL, 1.50, 0.1, 0.1, '2024-01-01 00:00:00.120000', '2024-01-01 00:00:00.5', '10:00:00.5', {bin},"
    " 2024, '2024-02-29'),"
    " (2, NULL, 'two', -0.25, 3.4e38, 1e20, '1999-12-31 23:59:59.999999', NULL, '00:00:00', NULL, 1901, '0001-01-01'),"
    " (3, '', 'three ', NULL, 1.17549e-38, 1.7976931348623157e308, NULL, '2030-06-01 12:00:00', NULL, {empty}, NULL,"
    " NULL),"
    " (-4, 'ünïcödé 🐦', '\\x41', 99999999.99, 0, 123456789012345678, '2024-01-01', NULL, NULL, {bin}, 2155, NULL)",
    "INSERT INTO {}.pairs VALUES (1, '2024-01-01 00:00:00.5', 'a'), (1, '2024-01-01 00:00:00.123', 'b'),"
    " (1, '2023-01-01', 'c'), (2, '2020-01-01', NULL), (10, '2024-01-01', ''), (9, '2024-01-01', 'x')",
    "INSERT INTO {}.words VALUES ('apple', 'a'), ('Banana', 'b'), ('cherry', 'c'), ('Äpfel', 'd'), ('zoo', 'e'),"
    " ('Zulu', 'f')",
)


@dataclass
class Bench:
    """A source database and its copy in a target."""

    mysql: MySQLServer
    case: TargetCase
    name: str
    directory: Path
    runs: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def at_source(self, statement: str) -> None:
        with closing(self.mysql.connect(self.name, init_command="SET time_zone = '+00:00'")) as connection:
            connection.cursor().execute(statement)

    def at_target(self, statement: str) -> None:
        self.case.change(statement.format(self.name))

    def load(self, tables: tuple[str, ...] = TABLES, rows: tuple[str, ...] = ROWS) -> None:
        for statement in tables:
            self.at_source(statement)
        for table in self.tables():
            self.case.target().schema().create(table)
        for statement in rows:
            self.at_source(statement.replace("\\x41", "\\\\x41").format(self.name, bin="x'00FF5C'", empty="''"))
            self.at_target(statement.format(self.name, bin="'\\x00FF5C'", empty="'\\x'"))

    def source(self) -> SourcePort:
        return build_source(self.file(CheckOptions()), self.case.target(MIGRATION), self.stop)

    def tables(self) -> list[Table]:
        tables, problems = self.source().discover()
        assert not [problem for problem in problems if problem.fatal]
        return tables

    def file(self, options: CheckOptions, index: int = 0, workers: int = 1) -> TaskFile:
        source = MySQLSpec(
            host=self.mysql.host, port=self.mysql.port, credentials_secret_ref=SecretRef(name="mysql"),
            tls=Tls(ca_secret_ref=SecretKeyRef(name="mysql")),
        )  # fmt: skip
        target = PostgreSQLTarget(host="unused", database="unused", credentials_secret_ref=SecretRef(name="unused"))
        return TaskFile(
            task=TaskKind.CHECK, task_id="check", migration=MIGRATION, index=index, workers=workers,
            source=Source(mysql=source), target=Target(postgresql=target), tables=Tables(include=[f"{self.name}.*"]),
            check=options, secrets={"mysql": str(self.directory / "mysql")},
            report_file=str(self.directory / f"report{index}"), orders_file=str(self.directory / "orders"),
        )  # fmt: skip

    def context(self, options: CheckOptions, index: int = 0, workers: int = 1) -> TaskContext:
        file, target = self.file(options, index, workers), self.case.target(MIGRATION)
        report, orders = Reporter(file, FileSink(Path(file.report_file))), FileMailbox(Path(file.orders_file))
        return TaskContext(file, self.source(), target, report, OrderBook(orders), self.stop)

    def check(self, index: int = 0, workers: int = 1, **options: Any) -> CheckReport:
        self.runs += 1
        given: dict[str, Any] = {
            "recheck": Recheck(attempts=2, backoff="50ms"), "report_file": str(self.directory / f"found{self.runs}"),
        }  # fmt: skip
        context = self.context(CheckOptions(**(given | options)), index, workers)
        check.run(context)
        context.report.publish()
        written = json.loads(Path(context.file.report_file).read_text())
        return CheckReport.model_validate(written["check"])

    def found(self) -> list[dict[str, Any]]:
        """The differences that the last check listed, without the database's name."""
        lines = (self.directory / f"found{self.runs}").read_text().splitlines()
        return [entry | {"table": entry["table"].removeprefix(f"{self.name}.")} for entry in map(json.loads, lines)]


@pytest.fixture
def bench(mysql: MySQLServer, mysql_database: str, case: TargetCase, tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "mysql").mkdir()
    (tmp_path / "mysql" / "username").write_text(mysql.migration.user)
    (tmp_path / "mysql" / "password").write_text(mysql.migration.password)
    (tmp_path / "mysql" / "ca.crt").write_bytes(Path(mysql.ca_file).read_bytes())
    made = Bench(mysql, case, mysql_database, tmp_path)
    yield made
    made.stop.set()
    case.change(f"DROP SCHEMA IF EXISTS {mysql_database} CASCADE")


def test_equal_tables_are_equal(bench: Bench) -> None:
    bench.load()
    report = bench.check()
    assert (report.result, report.examples, bench.found()) == (CheckResult.EQUAL, [], [])
    assert (report.rows_compared, report.tables_compared, report.tables_total) == (16, 4, 4)
    assert report.validated_through == bench.source().position()


DAMAGE = {
    "one byte changed": ("UPDATE {}.numbers SET bin = '\\x00FE5C' WHERE id = 1", "numbers changed id=1", "bin"),
    "one letter's case": ("UPDATE {}.numbers SET a = 'One' WHERE id = 1", "numbers changed id=1", "a"),
    "a space less": ("UPDATE {}.numbers SET b = 'three' WHERE id = 3", "numbers changed id=3", "b"),
    "NULL for empty": ("UPDATE {}.numbers SET a = NULL WHERE id = 3", "numbers changed id=3", "a"),
    "empty for NULL": ("UPDATE {}.numbers SET bin = '' WHERE id = 2", "numbers changed id=2", "bin"),
    "NULLs swapped in a row": ("UPDATE {}.numbers SET a = b, b = a WHERE id = 2", "numbers changed id=2", "a b"),
    "minus zero float": ("UPDATE {}.numbers SET f = '-0' WHERE id = -4", "numbers changed id=-4", "f"),
    "not a number": ("UPDATE {}.numbers SET g = 'NaN' WHERE id = -4", "numbers changed id=-4", "g"),
    "a double's last bit": ("UPDATE {}.numbers SET g = 0.10000000000000002 WHERE id = 1", "numbers changed id=1", "g"),
    "a microsecond": (
        "UPDATE {}.numbers SET t = t - interval '1 microsecond' WHERE id = 2", "numbers changed id=2", "t",
    ),
    "an hour of time zone": (
        "UPDATE {}.numbers SET ts = '2024-01-01 00:00:00.5+01' WHERE id = 1", "numbers changed id=1", "ts",
    ),
    "a cent": ("UPDATE {}.numbers SET d = 1.51 WHERE id = 1", "numbers changed id=1", "d"),
    "a row missing": ("DELETE FROM {}.numbers WHERE id = -4", "numbers missing id=-4", ""),
    "a row extra at the end": ("INSERT INTO {}.numbers (id) VALUES (99)", "numbers extra id=99", ""),
    "a row extra in an empty table": ("INSERT INTO {}.nothing VALUES (1, '')", "nothing extra id=1", ""),
    "composite key: changed": (
        "UPDATE {}.pairs SET note = '' WHERE k1 = 2", "pairs changed k1=2,k2=2020-01-01 00:00:00.000", "note",
    ),
    "composite key: missing": (
        "DELETE FROM {}.pairs WHERE note = 'b'", "pairs missing k1=1,k2=2024-01-01 00:00:00.123", "",
    ),
    "composite key: extra": (
        "INSERT INTO {}.pairs VALUES (1, '2024-01-01 00:00:00.124', '')",
        "pairs extra k1=1,k2=2024-01-01 00:00:00.124", "",
    ),
    "string key: changed": (
        "UPDATE {}.words SET value = 'B' WHERE code = 'Banana'", "words changed code=Banana", "value",
    ),
    "string key: missing": ("DELETE FROM {}.words WHERE code = 'Äpfel'", "words missing code=Äpfel", ""),
    "string key: extra but for case": ("INSERT INTO {}.words VALUES ('APPLE', 'a')", "words extra code=APPLE", ""),
    "string key: extra but for a space": ("INSERT INTO {}.words VALUES ('zoo ', 'e')", "words extra code=zoo ", ""),
}  # fmt: skip


def summary(entry: dict[str, Any]) -> str:
    key = ",".join(f"{name}={value}" for name, value in entry["key"].items())
    return f"{entry['table']} {entry['kind']} {key}"


def test_each_damage_is_found_and_nothing_else(bench: Bench) -> None:
    bench.load()
    for what, (statement, expected, columns) in DAMAGE.items():
        table = f"{bench.name}.{expected.split()[0]}"
        bench.at_target(f"CREATE TABLE {{}}.kept AS SELECT * FROM {table}")
        bench.at_target(statement)
        report = bench.check(recheck=Recheck(attempts=0))
        assert [summary(entry) for entry in bench.found()] == [expected], what
        assert " ".join(bench.found()[0]["columns"]) == columns, what
        assert (report.result, report.differences.total) == (CheckResult.DIFFERENT, 1), what
        bench.at_target(f"DELETE FROM {table}")
        bench.at_target(f"INSERT INTO {table} SELECT * FROM {{}}.kept")
        bench.at_target("DROP TABLE {}.kept")
    assert bench.check().result is CheckResult.EQUAL


def test_all_damage_at_once_is_found(bench: Bench) -> None:
    bench.load()
    for statement in ("one byte changed", "a row missing", "a row extra at the end", "composite key: extra"):
        bench.at_target(DAMAGE[statement][0])
    for statement in ("string key: extra but for case", "string key: missing"):
        bench.at_target(DAMAGE[statement][0])
    bench.at_target("UPDATE {}.pairs SET note = CASE WHEN k1 = 2 THEN '' ELSE NULL END WHERE k1 IN (2, 10)")
    report = bench.check()
    assert (report.differences.missing, report.differences.extra, report.differences.changed) == (2, 3, 3)
    assert len(report.examples) == 8


def test_values_equal_in_other_forms_are_equal(bench: Bench) -> None:
    bench.load()
    bench.at_target("ALTER TABLE {}.numbers ALTER COLUMN d TYPE numeric(20, 6)")
    bench.at_target("UPDATE {}.numbers SET f = f, d = d + 0.000000")
    assert bench.check().result is CheckResult.EQUAL


MANY = (
    "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 45000)"
    " SELECT n, repeat('x', n % 50) FROM s"
)


def test_many_rows_over_many_batches(bench: Bench) -> None:
    definitions = ("numbered (id INT PRIMARY KEY, a TEXT)", "named (id VARCHAR(9) PRIMARY KEY, a TEXT)")
    bench.load(tuple(f"CREATE TABLE {definition}" for definition in definitions), ())
    with closing(bench.mysql.connect(bench.name)) as connection, connection.cursor() as cursor:
        cursor.execute("SET cte_max_recursion_depth = 100000")
        for table in ("numbered", "named"):
            cursor.execute(f"INSERT INTO {table} {MANY}")
            bench.at_target(f"INSERT INTO {{}}.{table} {MANY}")
    assert bench.check().result is CheckResult.EQUAL
    for table in ("numbered", "named"):
        bench.at_target(f"DELETE FROM {{}}.{table} WHERE id::int IN (20000, 20001, 45000)")
        bench.at_target(f"INSERT INTO {{}}.{table} VALUES ('0', ''), ('45001', '')")
        bench.at_target(f"UPDATE {{}}.{table} SET a = a || 'y' WHERE id::int % 9000 = 1")
    report = bench.check(report=Report(max_differences=3))
    assert (report.differences.missing, report.differences.extra, report.differences.changed) == (6, 4, 10)
    assert (len(bench.found()), len(report.examples), report.rows_compared) == (3, 20, 90_000)


def test_a_table_with_more_extra_rows_than_fit_one_portion(bench: Bench) -> None:
    bench.load()
    bench.at_target("INSERT INTO {}.nothing SELECT n, '' FROM generate_series(1, 12000) AS s (n)")
    assert bench.check().differences.extra == 12_000


def test_workers_share_the_tables(bench: Bench) -> None:
    bench.load()
    bench.at_target(DAMAGE["a cent"][0])
    bench.at_target(DAMAGE["composite key: missing"][0])
    reports = [bench.check(index, 3) for index in range(3)]
    assert sum(report.differences.total for report in reports) == 2
    assert sum(report.tables_compared for report in reports) == 4


def with_control(bench: Bench) -> None:
    control = bench.case.target(MIGRATION).control()
    control.ensure()
    control.register(bench.source().identity())


@dataclass
class FakeStream:
    """Moves the stream's control row as a stream would; the test says what it writes."""

    bench: Bench

    def __post_init__(self) -> None:
        with_control(self.bench)
        self.session = self.bench.case.target(MIGRATION).session("stream", 0)
        self.session.take()
        self.source = self.bench.source()

    def apply(self, *statements: str) -> None:
        position = self.source.position()
        for statement in statements:
            self.bench.at_target(statement)
        self.session.commit([], position=position)


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_rows_in_flight_are_waited_for(bench: Bench) -> None:
    bench.load()
    stream = FakeStream(bench)
    stream.apply()
    bench.at_source("UPDATE numbers SET a = 'new' WHERE id = 1")
    bench.at_source("DELETE FROM words WHERE code = 'zoo'")
    bench.at_source("INSERT INTO pairs VALUES (5, '2024-01-01', 'n')")

    def later() -> None:
        time.sleep(1)  # the stream's delay, which the check must outlast
        stream.apply(
            "UPDATE {}.numbers SET a = 'new' WHERE id = 1",
            "DELETE FROM {}.words WHERE code = 'zoo'",
            "INSERT INTO {}.pairs VALUES (5, '2024-01-01', 'n')",
        )

    applied = in_background(later)
    report = bench.check(recheck=Recheck(attempts=1, backoff="10ms"))
    applied.join()
    assert (report.result, bench.found()) == (CheckResult.EQUAL, [])


def test_damage_under_a_stream_is_different_though_the_source_goes_on(bench: Bench) -> None:
    bench.load()
    stream = FakeStream(bench)
    bench.at_target(DAMAGE["one byte changed"][0])
    done = threading.Event()

    def traffic() -> None:
        number = 1000
        while not done.is_set():
            bench.at_source(f"INSERT INTO nothing VALUES ({number}, '')")
            stream.apply(f"INSERT INTO {{}}.nothing VALUES ({number}, '')")
            number += 1

    flowing = in_background(traffic)
    report = bench.check()
    done.set()
    flowing.join()
    assert (report.result, report.differences.total, report.inconclusive) == (CheckResult.DIFFERENT, 1, 0)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_row_that_never_rests_is_inconclusive(bench: Bench, streaming: bool) -> None:
    bench.load()
    stream = FakeStream(bench) if streaming else None
    bench.at_source("UPDATE numbers SET y = 1950 WHERE id = 1")
    done = threading.Event()

    def hot() -> None:
        with closing(bench.mysql.connect(bench.name)) as connection, connection.cursor() as cursor:
            number = 0
            while not done.is_set():
                number += 1
                cursor.execute("UPDATE numbers SET a = %s WHERE id = 1", (f"{number}",))

    def moving() -> None:
        while stream is not None and not done.is_set():
            stream.apply()

    threads = [in_background(hot), in_background(moving)]
    report = bench.check()
    done.set()
    for thread in threads:
        thread.join()
    assert (report.result, report.differences.total, report.inconclusive) == (CheckResult.INCONCLUSIVE, 0, 1)
    assert [(entry["kind"], entry["key"]) for entry in bench.found()] == [("inconclusive", {"id": "1"})]
    assert "changed again" in bench.found()[0]["reason"]


def test_a_target_that_stays_behind_is_inconclusive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "PATIENCE_SECONDS", 0.5)
    bench.load()
    FakeStream(bench).apply()
    bench.at_source("UPDATE numbers SET a = 'new' WHERE id = 1")
    report = bench.check()
    assert (report.result, report.inconclusive) == (CheckResult.INCONCLUSIVE, 1)
    assert "did not reach the source's position" in bench.found()[0]["reason"]


def test_a_stopped_table_is_inconclusive_with_its_reason(bench: Bench) -> None:
    bench.load()
    with_control(bench)
    bench.case.target(MIGRATION).control().add_tables(check_rows(bench))
    bench.case.target(MIGRATION).control().set_table(f"{bench.name}.pairs", "Stopped", "ALTER TABLE pairs")
    report = bench.check()
    assert (report.result, report.differences.total, report.inconclusive) == (CheckResult.INCONCLUSIVE, 0, 1)
    assert bench.found() == [{"table": "pairs", "kind": "inconclusive", "reason": "ALTER TABLE pairs"}]


def check_rows(bench: Bench) -> list[TableRow]:
    return [TableRow(table.name, "Copied", 10) for table in bench.tables()]


def test_the_final_check_finds_what_differs_among_changed_keys(bench: Bench) -> None:
    bench.load()
    since = bench.source().position()
    bench.at_source("UPDATE numbers SET id = 50 WHERE id = 3")
    bench.at_source("UPDATE words SET value = 'new' WHERE code = 'zoo'")
    bench.at_source("INSERT INTO pairs VALUES (7, '2024-01-01', 'n')")
    bench.at_target("UPDATE {}.words SET value = 'new' WHERE code = 'zoo'")
    bench.at_target("INSERT INTO {}.pairs VALUES (7, '2024-01-01', 'n')")
    through = bench.source().position()
    final: dict[str, Any] = {"scope": CheckScope.FINAL, "since": since, "through": through}
    report = bench.check(**final)
    assert {summary(entry) for entry in bench.found()} == {"numbers extra id=3", "numbers missing id=50"}
    bench.at_target("UPDATE {}.numbers SET id = 50 WHERE id = 3")
    report = bench.check(**final)
    assert (report.result, report.validated_through, report.rows_compared) == (CheckResult.EQUAL, through, 4)


def test_the_final_check_counts_all_rows(bench: Bench) -> None:
    bench.load()
    position = bench.source().position()
    bench.at_target("DELETE FROM {}.words WHERE code = 'cherry'")
    report = bench.check(scope=CheckScope.FINAL, since=position, through=position)
    assert [(entry["table"], entry["kind"], entry["key"]) for entry in bench.found()] == [
        ("words", "missing", {"code": "cherry"})
    ]
    assert report.result is CheckResult.DIFFERENT


def test_the_final_check_compares_a_table_with_too_many_changes_as_a_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "KEYS_PER_TABLE", 2)
    bench.load()
    since = bench.source().position()
    bench.at_source("UPDATE pairs SET note = 'all'")
    bench.at_target("UPDATE {}.pairs SET note = 'all' WHERE k1 <> 9")
    report = bench.check(scope=CheckScope.FINAL, since=since, through=bench.source().position())
    assert (report.differences.changed, report.rows_compared) == (1, 6)


def test_a_table_altered_before_the_final_check_is_inconclusive(bench: Bench) -> None:
    bench.load()
    since = bench.source().position()
    bench.at_source("ALTER TABLE pairs ADD COLUMN more INT")
    bench.at_source("ALTER TABLE pairs DROP COLUMN more")
    report = bench.check(scope=CheckScope.FINAL, since=since, through=bench.source().position())
    assert (report.result, report.inconclusive) == (CheckResult.INCONCLUSIVE, 1)
    assert bench.found()[0]["table"] == "pairs"


def test_another_servers_position_is_refused(bench: Bench) -> None:
    bench.load()
    with pytest.raises(ConfigurationError, match="does not hold the position"):
        bench.check(scope=CheckScope.FINAL, since="", through="11111111-2222-3333-4444-555555555555:1-5")


def test_no_table_is_no_success(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no table to compare.*spec\.tables"):
        bench.check()


def test_a_check_ends_when_told_to(bench: Bench) -> None:
    bench.load()
    bench.stop.set()
    with pytest.raises(Stopped):
        bench.check()


def test_a_check_writes_nothing(bench: Bench) -> None:
    bench.load()
    with_control(bench)
    bench.at_target("ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        assert bench.check().result is CheckResult.EQUAL
    finally:
        bench.at_target("BEGIN READ WRITE; ALTER DATABASE postgres RESET default_transaction_read_only; COMMIT")


def test_a_rate_limit_is_kept(bench: Bench) -> None:
    bench.load()
    began = time.monotonic()
    bench.check(rows_per_second=8)
    assert time.monotonic() - began >= 16 / 8 - 1  # unused time of one second may be made up for
