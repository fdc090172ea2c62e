"""`whimbrel run` with real servers: broken off and taken up again, steered from outside, stalled."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.demos import until
from whimbrel_testbed.compare import independent_compare
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.postgres import PostgresServer

pytestmark = pytest.mark.timeout(180)
ROWS = 500


def _whimbrel(state: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "whimbrel_cli", "--state", str(state), *map(str, arguments)]
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate()
    return process.returncode, output


@contextmanager
def _running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def _manifests(mysql: MySQLServer, postgres: PostgresServer, source: str, target: str, password: str) -> str:
    ca_file = mysql.migration.ca_file
    ca = Path(ca_file).read_text() if ca_file else ""
    spec: dict[str, Any] = {
        "source": {
            "mysql": {
                "host": mysql.host,
                "port": mysql.port,
                "credentialsSecretRef": {"name": "source"},
                "tls": {"caSecretRef": {"name": "source", "key": "ca.crt"}},
            }
        },
        "target": {
            "postgresql": {
                "host": postgres.host,
                "port": postgres.port,
                "database": target,
                "credentialsSecretRef": {"name": "target"},
                "tls": {"mode": "Disabled"},
            }
        },
        "tables": {"include": [f"{source}.*"]},
    }
    secrets = {
        "source": {"username": mysql.migration.user, "password": password, "ca.crt": ca},
        "target": {"username": postgres.user, "password": postgres.password},
    }
    migration = {"apiVersion": "whimbrel.dev/v1alpha1", "kind": "Migration", "metadata": {"name": "shop"}, "spec": spec}
    documents = [migration] + [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
        for name, data in secrets.items()
    ]
    return yaml.safe_dump_all(documents)


def _fill(mysql: MySQLServer, database: str) -> None:
    with closing(mysql.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE items (id bigint PRIMARY KEY, name varchar(50))")
        cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(n, f"item {n}") for n in range(ROWS)])


def test_a_run_is_broken_off_approved_and_taken_up_again(
    mysql: MySQLServer, postgres: PostgresServer, mysql_database: str, postgres_database: str, tmp_path: Path
) -> None:
    _fill(mysql, mysql_database)
    file, state = tmp_path / "shop.yaml", tmp_path / "state"
    file.write_text(_manifests(mysql, postgres, mysql_database, postgres_database, mysql.migration.password))

    with _running(_whimbrel(state, "run", file)) as first:
        shown = until(first, "Next: To cut over: whimbrel approve shop --plan sha256:")
        first.send_signal(signal.SIGINT)
        code, rest = _finished(first)
    assert code == 130, shown + rest
    assert "Run the same command to go on." in rest

    plan = shown.rsplit("--plan ", 1)[1].strip()
    assert _finished(_whimbrel(state, "approve", "shop", "--plan", plan))[0] == 0
    with closing(mysql.connect(mysql_database)) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE items SET name = 'changed while nobody looked' WHERE id = 7")

    with _running(_whimbrel(state, "run", file)) as second:
        code, output = _finished(second)
    assert code == 0, output
    assert "Completed" in output
    difference = independent_compare(mysql.admin, postgres.conninfo_for(postgres_database), [f"{mysql_database}.items"])
    assert difference == []
    assert "Completed" in _finished(_whimbrel(state, "status"))[1]


def test_a_wrong_password_stalls_and_is_said_without_showing_it(
    mysql: MySQLServer, postgres: PostgresServer, mysql_database: str, postgres_database: str, tmp_path: Path
) -> None:
    _fill(mysql, mysql_database)
    file = tmp_path / "shop.yaml"
    file.write_text(_manifests(mysql, postgres, mysql_database, postgres_database, "hunter2"))
    code, output = _finished(_whimbrel(tmp_path / "state", "run", file, "--stop-when-stalled", "--timeout", "60s"))
    assert code == 3, output
    assert "Next: Stalled (ConfigurationError):" in output
    assert "hunter2" not in output


def test_a_run_that_takes_too_long_ends_with_5(
    mysql: MySQLServer, postgres: PostgresServer, mysql_database: str, postgres_database: str, tmp_path: Path
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(_manifests(mysql, postgres, mysql_database, postgres_database, mysql.migration.password))
    code, output = _finished(_whimbrel(tmp_path / "state", "run", file, "--timeout", "100ms"))
    assert code == 5, output
