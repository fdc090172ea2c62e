"""Signing in to the DSQL stand-in: TLS both ways, tokens, connection limits; statements are tested elsewhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import psycopg
import pytest

from whimbrel_testbed.certificates import make_authority
from whimbrel_testbed.dsql import Control, DSQLServer, dsql_server


@pytest.fixture(scope="module")
def server() -> Iterator[DSQLServer]:
    with dsql_server() as started:
        yield started


@pytest.fixture(autouse=True)
def dials_off(server: DSQLServer) -> Iterator[None]:
    yield
    server.control.set(pause=False, max_session_seconds=0, token_expiry_leeway=0, limits={})


def refused(server: DSQLServer, **changes: object) -> str:
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(**{**server.conninfo(), **changes})
    return str(caught.value)


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_both_tls_negotiations_verify_fully(server: DSQLServer, negotiation: str) -> None:
    with psycopg.connect(**{**server.conninfo(), "sslnegotiation": negotiation}) as connection:
        assert connection.pgconn.ssl_in_use
        row = connection.execute(
            "SELECT current_user, current_setting('transaction_isolation'), current_setting('TimeZone')"
        )
        assert row.fetchone() == ("admin", "repeatable read", "UTC")


def test_the_token_of_boto3s_own_client_is_taken(server: DSQLServer) -> None:
    client = boto3.client(
        "dsql", region_name=server.region, aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
    )  # fmt: skip
    token = client.generate_db_connect_admin_auth_token(server.endpoint, server.region, 60)
    psycopg.connect(**{**server.conninfo(), "password": token}).close()


def test_another_authority_is_refused_by_the_client(server: DSQLServer, tmp_path: Path) -> None:
    other = make_authority(tmp_path)
    assert "certificate verify failed" in refused(server, sslrootcert=str(other.ca_file))


def test_without_tls_there_is_no_way_in(server: DSQLServer) -> None:
    assert "TLS is required" in refused(server, sslmode="disable", sslrootcert=None)


def test_an_expired_token_is_refused_only_when_connecting(server: DSQLServer) -> None:
    token = server.token(expires_in=1)
    with psycopg.connect(**{**server.conninfo(), "password": token}, autocommit=True) as connection:
        server.control.set(token_expiry_leeway=-3_600)
        assert connection.execute("SELECT 1").fetchone() == (1,)
        message = refused(server, password=token)
    assert "unable to accept connection, access denied" in message
    assert "HINT:  Signature expired" in message


def test_a_changed_signature_is_refused(server: DSQLServer) -> None:
    token = server.token()
    message = refused(server, password=token[:-4] + ("0000" if token[-4:] != "0000" else "1111"))
    assert "access denied" in message
    assert "signature we calculated does not match" in message


@pytest.mark.parametrize(
    ("case", "hint"),
    [("host", "another host"), ("user", "Action DbConnect is needed"), ("garbage", "not an IAM authentication token")],
)
def test_a_token_for_something_else_is_refused(server: DSQLServer, case: str, hint: str) -> None:
    changes: dict[str, object] = {
        "host": {"password": server.token(host="other.dsql.us-east-1.on.aws")},
        "user": {"user": "reader"},
        "garbage": {"password": "secret"},
    }[case]  # type: ignore[assignment]
    assert hint in refused(server, **changes)


def test_another_key_pair_is_refused(server: DSQLServer) -> None:
    client = boto3.client("dsql", region_name=server.region, aws_access_key_id="AKIAOTHER", aws_secret_access_key="x")
    token = client.generate_db_connect_admin_auth_token(server.endpoint, server.region, 60)
    assert "credential scope" in refused(server, password=token)


def test_a_role_signs_in_with_the_action_of_its_own(server: DSQLServer) -> None:
    with psycopg.connect(**server.conninfo(), autocommit=True) as admin:
        admin.execute("CREATE ROLE reader LOGIN")
    with psycopg.connect(**{**server.conninfo(), "user": "reader", "password": server.token(user="reader")}) as reader:
        assert reader.execute("SELECT current_user").fetchone() == ("reader",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("CREATE TABLE public.mine (id int PRIMARY KEY)")
    assert "does not exist" in refused(server, user="nobody", password=server.token(user="nobody"))


def test_start_up_parameters_outside_the_allow_list_are_refused(server: DSQLServer) -> None:
    assert '"statement_timeout" not supported' in refused(server, options="-c statement_timeout=1000")
    psycopg.connect(**server.conninfo(), application_name="whimbrel", options="-c search_path=public").close()


def test_connections_a_second_are_limited(server: DSQLServer) -> None:
    server.control.set(limits={"connection_burst": 2, "connections_per_second": 0.01})
    for _ in range(2):
        psycopg.connect(**server.conninfo()).close()
    assert "connection rate limit exceeded" in refused(server)


def test_open_connections_are_limited(server: DSQLServer) -> None:
    server.control.set(limits={"connections": server.control.counters()["open"] + 1})
    with psycopg.connect(**server.conninfo()):
        assert "too many connections" in refused(server)


def test_a_session_ends_at_its_age(server: DSQLServer) -> None:
    server.control.set(max_session_seconds=0.5)
    with psycopg.connect(**server.conninfo(), autocommit=True) as connection:
        started = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(20)")
        assert time.monotonic() - started < 10


def test_a_paused_server_answers_again_afterwards(server: DSQLServer) -> None:
    with psycopg.connect(**server.conninfo(), autocommit=True) as connection:
        server.control.set(pause=True)
        connection.pgconn.send_query(b"SELECT 42")
        assert "timeout" in refused(server, connect_timeout=2)
        server.control.set(pause=False)
        result = connection.pgconn.get_result()
        assert result is not None
        assert result.get_value(0, 0) == b"42"
        assert connection.pgconn.get_result() is None


def test_unknown_dials_and_limits_are_refused(server: DSQLServer) -> None:
    with pytest.raises(ValueError, match="unknown dials"):
        server.control.set(nonsense=1)
    with pytest.raises(ValueError, match="unknown limits"):
        server.control.set(limits={"nonsense": 1})


def test_the_command_prints_one_line_and_leaves_nothing() -> None:
    script = "from whimbrel_testbed.dsql import serve; serve()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        ca_file = Path(line["caFile"])
        with psycopg.connect(
            host=line["endpoint"], port=line["port"], user=line["user"], password=line["token"],
            dbname=line["database"], sslmode="verify-full", sslrootcert=line["caFile"],
        ) as connection:  # fmt: skip
            assert connection.info.server_version // 10_000 == 16
        assert Control(line["control"]).counters()["connections"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout.read() == ""
    assert not ca_file.parent.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(line["backend"])


def test_nothing_outlives_who_started_it() -> None:
    script = "from whimbrel_testbed.dsql import serve; serve()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        process.kill()
        process.wait()
    deadline = time.monotonic() + 20
    while Path(line["caFile"]).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(host="127.0.0.1", port=line["port"], user="admin", password="x", sslmode="disable")
