"""What statements in the log mean, and what the server's errors mean."""

import pytest

from whimbrel_worker.endpoints.mysql.binlog.server_errors import dump_error
from whimbrel_worker.endpoints.mysql.binlog.statements import Meaning, meaning_of
from whimbrel_worker.errors import ConfigurationError, SourceLogLost, Transient, WorkerError

ROWS, OTHER, NOTHING = Meaning.ROWS_AS_TEXT, Meaning.OTHER, Meaning.NOTHING


@pytest.mark.parametrize(
    ("sql", "meaning"),
    [
        ("insert into t values (1)", ROWS),
        ("  UPDATE t SET a=1", ROWS),
        ("/* hi */ DELETE FROM t", ROWS),
        ("-- note\nREPLACE INTO t VALUES (1)", ROWS),
        ("# note\n LOAD DATA INFILE 'x' INTO TABLE t", ROWS),
        ("/*!40000 INSERT INTO t VALUES (1) */", ROWS),
        ("WITH c AS (SELECT 1) UPDATE t SET a=1", ROWS),
        ("(SELECT f())", ROWS),
        ("SELECT `d`.`f`(1)", ROWS),
        ("CALL p()", ROWS),
        ("/**/INSERT INTO t VALUES (1)", ROWS),
        ("CREATE TABLE t (a int)", OTHER),
        ("/* INSERT */ ALTER TABLE t ADD b int", OTHER),
        ("TRUNCATE t", OTHER),
        ("/*!50001 CREATE VIEW v AS SELECT 1 */", OTHER),
        ("DROP TABLE `insert`", OTHER),
        ("", OTHER),
        ("GRANT ALL ON *.* TO a", OTHER),
        ("COMMIT", Meaning.COMMIT),
        ("commit /* x */", Meaning.COMMIT),
        ("SAVEPOINT `a`", NOTHING),
        ("RELEASE SAVEPOINT a", NOTHING),
        ("ROLLBACK TO `a`", Meaning.ROLLBACK),
        ("ROLLBACK", Meaning.ROLLBACK),
        ("XA START X'01',X'',1", Meaning.XA),
        ("INSERT INTO mysql.rds_heartbeat2(id, value) values (1,1) ON DUPLICATE KEY UPDATE value = 1", NOTHING),
        ("DELETE FROM `mysql`.`rds_sysinfo` where name = 'x'", NOTHING),
        ("INSERT INTO mysql.rds_heartbeat2.t values (1)", ROWS),
        ("INSERT INTO mysql.rds_x values (1); DELETE FROM t", ROWS),
        ("INSERT INTO mysqlXrds_heartbeat2 values (1)", ROWS),
        ("DELETE FROM mysql.rds_a, t USING t", ROWS),
    ],
)
def test_meaning(sql: str, meaning: Meaning) -> None:
    assert meaning_of(sql) is meaning


def error(code: int, text: str) -> WorkerError:
    payload = b"\xff" + code.to_bytes(2, "little") + b"#HY000" + text.encode()
    return dump_error(payload, wanted="u:1-5", purged="u:1-9", server_id=77)


@pytest.mark.parametrize(
    ("code", "text", "kind", "words"),
    [
        (
            1236,
            "Cannot replicate because the source purged required binary logs.",
            SourceLogLost,
            ["u:1-5", "u:1-9", "binlog_expire"],
        ),
        (1236, "Could not find first log file name in binary log index file", SourceLogLost, ["anew"]),
        (
            1236,
            "A replica with the same server_uuid/server_id as this replica has connected to the source",
            ConfigurationError,
            ["77"],
        ),
        (
            1236,
            "Replica has more GTIDs than the source has, using the source's SERVER_UUID.",
            SourceLogLost,
            ["restored", "u:1-5"],
        ),
        (1236, "Cannot replicate anonymous transaction when AUTO_POSITION = 1", ConfigurationError, ["gtid_mode=ON"]),
        (
            1227,
            "Access denied; you need the REPLICATION SLAVE privilege",
            ConfigurationError,
            ["GRANT REPLICATION SLAVE"],
        ),
        (1053, "Server shutdown in progress", Transient, ["1053", "shutdown"]),
    ],
)
def test_server_errors_are_explained(code: int, text: str, kind: type[WorkerError], words: list[str]) -> None:
    found = error(code, text)
    assert type(found) is kind
    assert all(word in str(found) for word in words)
