"""The PolarDB stand-in: who may call it, its dials, and PostgreSQL going away behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import pytest

from whimbrel_testbed.dynamodb.client import dynamodb_client
from whimbrel_testbed.polardb.server import polardb_server

if TYPE_CHECKING:
    from whimbrel_testbed.polardb import PolarDBServer


@pytest.fixture(scope="module")
def own() -> Iterator[PolarDBServer]:
    with polardb_server() as server:
        yield server


@pytest.fixture
def server(own: PolarDBServer) -> Iterator[PolarDBServer]:
    yield own
    own.control.reset()


def _refused(server: PolarDBServer, **facts: str) -> str:
    client = dynamodb_client({**server.facts(), **facts}, attempts=1)
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.list_tables()
    print(caught.value)
    return str(caught.value.response["Error"]["Code"])


def test_a_wrong_account_or_password_is_refused(server: PolarDBServer) -> None:
    assert _refused(server, accessKeyId="nobody") == "UnrecognizedClientException"
    assert _refused(server, secretAccessKey="wrong") == "InvalidSignatureException"
    assert dynamodb_client({**server.facts(), "region": "cn-hangzhou"}).list_tables()["TableNames"] == []


def test_a_call_without_signature_is_refused(server: PolarDBServer) -> None:
    import json
    import urllib.error
    import urllib.request

    for headers, kind in (
        ({}, "MissingAuthenticationTokenException"),
        ({"Authorization": "AWS4-HMAC-SHA256 Credential=whimbrel/x"}, "IncompleteSignatureException"),
    ):
        request = urllib.request.Request(
            server.endpoint, b"{}", {"X-Amz-Target": "DynamoDB_20120810.ListTables", **headers}
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert json.load(caught.value)["__type"].endswith("#" + kind)


def test_an_account_without_rights(server: PolarDBServer) -> None:
    facts = {"accessKeyId": server.powerless_access_key_id, "secretAccessKey": server.powerless_secret_access_key}
    assert _refused(server, **facts) == "AccessDeniedException"


def test_a_refused_operation(server: PolarDBServer) -> None:
    server.control.set(refuse=["ListTables"])
    assert _refused(server) == "AccessDeniedException"
    server.control.set(refuse=["Scan"])
    assert dynamodb_client(server.facts()).list_tables()["TableNames"] == []


@pytest.mark.parametrize(
    "kind", ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"]
)
def test_throttling(server: PolarDBServer, kind: str) -> None:
    server.control.set(throttle=2.0, throttle_kind=kind)
    assert [_refused(server) for _ in range(2)] == [kind] * 2
    assert dynamodb_client(server.facts(), attempts=1).list_tables()["TableNames"] == []
    assert server.control.counters()["throttled"] >= 2


def test_down_and_up_again(server: PolarDBServer) -> None:
    client = dynamodb_client(server.facts(), attempts=1)
    server.control.set(down=True)
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        client.list_tables()
    server.control.set(down=False)
    assert client.list_tables()["TableNames"] == []


def test_an_unknown_dial_is_refused(server: PolarDBServer) -> None:
    with pytest.raises(ValueError, match="unknown dial 'speed'"):
        server.control.set(speed=1)
    with pytest.raises(ValueError, match="takes a bool"):
        server.control.set(down="yes")


def test_items_outlive_a_restart_of_postgresql(server: PolarDBServer) -> None:
    client: Any = dynamodb_client(server.facts())
    client.create_table(
        TableName="kept", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}], BillingMode="PAY_PER_REQUEST",
    )  # fmt: skip
    client.put_item(TableName="kept", Item={"pk": {"S": "a"}})
    server.backend.stop()
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        dynamodb_client(server.facts(), attempts=1).scan(TableName="kept")
    assert caught.value.response["Error"]["Code"] == "InternalServerError"
    server.backend.start()
    assert dynamodb_client(server.facts(), attempts=5).scan(TableName="kept")["Count"] == 1
    client.delete_table(TableName="kept")


def test_a_table_dropped_in_postgresql_is_gone(server: PolarDBServer) -> None:
    client: Any = dynamodb_client(server.facts(), attempts=1)
    client.create_table(
        TableName="dropped", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}], BillingMode="PAY_PER_REQUEST",
    )  # fmt: skip
    with server.backend.connect(server.postgres.database) as connection:
        connection.execute("DROP TABLE public.dropped")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_item(TableName="dropped", Key={"pk": {"S": "a"}})
    assert client.list_tables()["TableNames"] == []


def test_secrets_do_not_show(server: PolarDBServer) -> None:
    shown = repr(server)
    secrets = [server.secret_access_key, server.powerless_secret_access_key, server.postgres.password]
    assert not [secret for secret in secrets if secret in shown]
