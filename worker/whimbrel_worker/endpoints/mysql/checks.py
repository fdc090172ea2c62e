"""Settings, privileges and version of a MySQL source, each finding with its remedy. Tables are looked at in
discover."""

import re
from collections.abc import Iterator, Mapping

import pymysql

from whimbrel_worker.endpoints.mysql.connect import Connection, query
from whimbrel_worker.endpoints.mysql.failures import code_and_message
from whimbrel_worker.engine.ports import Problem

_OLDEST = (8, 0)
_SHORT_RETENTION = 24 * 3600
_VARIABLES = (
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "binlog_transaction_compression",
    "binlog_expire_logs_seconds",
    "gtid_mode",
    "enforce_gtid_consistency",
    "version",
    "version_comment",
)
_WANTED = (
    (
        "binlog_format",
        "ROW",
        "changes are read as rows, which only this format holds",
        "SET PERSIST binlog_format = ROW",
    ),
    (
        "binlog_row_image",
        "FULL",
        "an update must hold the whole row before and after",
        "SET PERSIST binlog_row_image = FULL",
    ),
    (
        "binlog_row_metadata",
        "FULL",
        "without column names in the log a change of a table would shift its columns",
        "SET PERSIST binlog_row_metadata = FULL",
    ),
    (
        "gtid_mode",
        "ON",
        "positions are sets of GTIDs",
        "SET PERSIST enforce_gtid_consistency = ON, then gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE, ON, in this order",
    ),
    (
        "enforce_gtid_consistency",
        "ON",
        "GTIDs need it",
        "SET PERSIST enforce_gtid_consistency = ON",
    ),
    (
        "binlog_row_value_options",
        "",
        "partial JSON updates cannot be applied without the row before",
        "SET PERSIST binlog_row_value_options = ''",
    ),
)
_EQUIVALENT = {"1": "ON", "0": "OFF"}


def check_server(connection: Connection) -> list[Problem]:
    """All problems of the server and the account."""
    marks = ", ".join(["%s"] * len(_VARIABLES))
    rows = query(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({marks})", _VARIABLES)
    settings = {str(name).lower(): str(value) for name, value in rows}
    problems = setting_problems(settings)
    grants = [str(row[0]) for row in query(connection, "SHOW GRANTS")]
    binlog = settings.get("log_bin") == "ON"
    if not is_granted(grants, "TRIGGER"):
        problems.append(
            Problem("triggers are not carried, and this account cannot see whether there are any", fatal=False)
        )
    return problems + list(_privilege_problems(connection, grants, parse_version(settings["version"]), binlog=binlog))


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor of a version such as 8.0.36-28."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def setting_problems(settings: Mapping[str, str]) -> list[Problem]:
    """What is wrong with the server's settings. A name that is missing does not exist in that version."""
    problems = list(_version_problems(settings))
    if settings.get("log_bin") != "ON":
        problems.append(
            Problem(
                "the binary log is off",
                where="log_bin",
                why="changes made during the copy are read from it",
                todo="start the server with --log-bin, then check again",
            )
        )
    for setting, wanted, why, todo in _WANTED:
        found = settings.get(setting)
        if found is not None and _EQUIVALENT.get(found, found).upper() != wanted:
            shown = f"{setting} is {found}, not {wanted or 'empty'}"
            problems.append(Problem(shown, where=setting, why=why, todo=f"as an administrator: {todo}"))
    return problems + list(_log_problems(settings))


def _version_problems(settings: Mapping[str, str]) -> Iterator[Problem]:
    version = settings.get("version", "")
    if "mariadb" in (version + settings.get("version_comment", "")).lower():
        yield Problem(
            f"the source is MariaDB ({version})",
            where="version",
            why="its GTIDs and log events are not MySQL's",
            todo="this version of Whimbrel reads MySQL 8.0 and later",
        )
    elif parse_version(version) < _OLDEST:
        yield Problem(
            f"the source is MySQL {version}",
            where="version",
            why="column names in the binary log came with 8.0",
            todo="upgrade the server to 8.0 or later, or migrate from a replica of it that is",
        )


def _log_problems(settings: Mapping[str, str]) -> Iterator[Problem]:
    if settings.get("binlog_transaction_compression") == "ON":
        yield Problem(
            "transactions in the binary log are compressed",
            where="binlog_transaction_compression",
            why="this version does not unpack them, and the stream would stop at the first one",
            todo="as an administrator: SET PERSIST binlog_transaction_compression = OFF",
        )
    seconds = settings.get("binlog_expire_logs_seconds")
    if seconds and 0 < int(seconds) < _SHORT_RETENTION:
        yield Problem(
            f"the binary log is kept for {int(seconds) // 60} minutes only",
            where="binlog_expire_logs_seconds",
            why="a copy that takes longer could not go on from where it began",
            todo="as an administrator: SET PERSIST binlog_expire_logs_seconds = 604800",
            fatal=False,
        )


def _privilege_problems(
    connection: Connection, grants: list[str], version: tuple[int, int], *, binlog: bool
) -> Iterator[Problem]:
    account = str(query(connection, "SELECT CURRENT_USER()")[0][0])
    status = "SHOW BINARY LOG STATUS" if version >= (8, 2) else "SHOW MASTER STATUS"
    trials = {"REPLICATION CLIENT": status, "REPLICATION SLAVE": "SHOW BINLOG EVENTS LIMIT 1"}
    for privilege, trial in trials.items():
        refused = _refused(connection, trial) if binlog else None
        if refused or (refused is None and not is_granted(grants, privilege)):
            yield missing_privilege(account, privilege, refused or "SHOW GRANTS does not list it")


def _refused(connection: Connection, statement: str) -> str | None:
    """The server's refusal, an empty text when it takes the statement, None when it fails for another reason."""
    try:
        query(connection, statement)
    except pymysql.err.OperationalError as error:
        code, message = code_and_message(error)
        return message if code == 1227 else None
    return ""


def missing_privilege(account: str, privilege: str, why: str) -> Problem:
    """A privilege that the account lacks."""
    user, _, host = account.rpartition("@")
    quoted = "@".join("'" + part.replace("'", "''") + "'" for part in (user, host))
    return Problem(
        f"the account {account} lacks the privilege {privilege}",
        where=privilege,
        why=why,
        todo=f"as an administrator: GRANT {privilege} ON *.* TO {quoted}",
    )


def is_granted(grants: list[str], privilege: str) -> bool:
    """Whether SHOW GRANTS lists a global privilege. It writes dynamic ones without a space after the comma."""
    pattern = re.compile(rf"GRANT (.*, ?)?({re.escape(privilege)}|ALL PRIVILEGES)(,.*)? ON \*\.\* TO ", re.IGNORECASE)
    return any(pattern.match(grant) for grant in grants)
