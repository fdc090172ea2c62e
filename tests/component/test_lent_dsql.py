"""What `make test-aws` does around a cluster, shown on the stand-in: it keeps others' things and removes its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.dsql_answers import Asked, put
from support.dsql_questions import QUESTIONS
from support.lent_dsql import Lent, Occupied, clean, drop_schema, has_schema, lent, migrations, schemas
from support.named_dsql import Keys, NamedDSQL
from whimbrel_testbed.dsql import DSQLServer, dsql_server

ROOT = Path(__file__).parents[2]
CONTROL = "CREATE TABLE whimbrel.migrations (migration text PRIMARY KEY)"


@pytest.fixture(scope="module")
def server() -> Iterator[DSQLServer]:
    with dsql_server() as started:
        yield started


@pytest.fixture
def cluster(server: DSQLServer) -> Iterator[NamedDSQL]:
    keys = Keys(server.access_key_id, server.secret_access_key)
    named = NamedDSQL(server.endpoint, server.region, server.port, ca_file=server.ca_file, keys=keys)
    yield named
    server.control.set(limits={})
    with named.connect() as connection:
        for name in schemas(connection, "whimbrel"):
            drop_schema(connection, name)


def give_control(cluster: NamedDSQL, *names: str) -> None:
    with cluster.connect() as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS whimbrel")
        connection.execute(CONTROL)
        for name in names:
            connection.execute("INSERT INTO whimbrel.migrations VALUES (%s)", (name,))


def known(cluster: NamedDSQL) -> list[str]:
    with cluster.connect() as connection:
        return migrations(connection)


def test_others_migrations_keep_a_run_away(cluster: NamedDSQL) -> None:
    give_control(cluster, "default/shop")
    with pytest.raises(Occupied, match="default/shop"), lent(cluster):
        raise AssertionError("it must not begin")
    assert known(cluster) == ["default/shop"]


def break_off(borrowed: Lent, before: bool) -> None:
    """What a run makes before it fails."""
    if not before:
        give_control(borrowed.cluster)
    with borrowed.cluster.connect() as connection:
        connection.execute(f"CREATE SCHEMA {borrowed.schema('x')}")
        connection.execute(f"CREATE TABLE {borrowed.schema('x')}.t (id int PRIMARY KEY)")
        connection.execute("CREATE SCHEMA whimbrel_test_other_run")
        connection.execute("INSERT INTO whimbrel.migrations VALUES (%s)", (f"{borrowed.namespace('x')}/shop",))
    raise RuntimeError


@pytest.mark.parametrize("before", [True, False])
def test_a_run_takes_its_own_away_and_leaves_what_was_there(cluster: NamedDSQL, before: bool) -> None:
    if before:
        give_control(cluster)
    with pytest.raises(RuntimeError), lent(cluster) as borrowed:
        break_off(borrowed, before)
    with cluster.connect() as connection:
        assert schemas(connection, "whimbrel_") == ["whimbrel_test_other_run"]
        assert has_schema(connection, "whimbrel") == before
        assert migrations(connection) == []


def test_cleaning_removes_what_killed_runs_left_and_nothing_else(cluster: NamedDSQL) -> None:
    give_control(cluster, "default/shop", "whimbrel-test-0a-run/shop")
    with cluster.connect() as connection:
        connection.execute("CREATE SCHEMA whimbrel_test_0a_run")
    assert clean(cluster) == ["schema whimbrel_test_0a_run", "migration whimbrel-test-0a-run/shop"]
    assert known(cluster) == ["default/shop"]


def test_a_service_that_answers_otherwise_is_told_apart(server: DSQLServer, cluster: NamedDSQL) -> None:
    question = QUESTIONS["3,000 rows in a transaction"]
    with lent(cluster) as borrowed:
        asked = Asked(cluster, borrowed.schema("asked"))
        with cluster.connect() as connection:
            connection.execute(f"CREATE SCHEMA {asked.schema}")
        assert str(put(question, asked)) == "taken: 3000"
        server.control.set(limits={"rows_per_transaction": 100})
        assert str(put(question, asked)) == "54000 transaction row limit exceeded"


def test_no_token_stands_in_what_is_said_about_a_failure(cluster: NamedDSQL) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        cluster.connect(dbname="nowhere")
    frames = caught.traceback
    assert [frame.name for frame in frames] == ["test_no_token_stands_in_what_is_said_about_a_failure", "connect"]
    assert "X-Amz" not in str(caught.getrepr(style="long", funcargs=True))


def test_the_suite_runs_on_what_the_environment_names(server: DSQLServer, cluster: NamedDSQL) -> None:
    told = {
        "WHIMBREL_AWS_DSQL_ENDPOINT": server.endpoint,
        "WHIMBREL_AWS_REGION": server.region,
        "WHIMBREL_AWS_DSQL_PORT": str(server.port),
        "WHIMBREL_AWS_DSQL_CA_FILE": server.ca_file,
        "AWS_ACCESS_KEY_ID": server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
    }
    command = [sys.executable, "-m", "pytest", "tests/aws", "-s", "-k", "savepoint", "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=os.environ | told, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert "service:  0A000 unsupported statement: Savepoint" in done.stdout
    assert server.secret_access_key not in done.stdout + done.stderr
    with cluster.connect() as connection:
        assert schemas(connection, "whimbrel") == []
