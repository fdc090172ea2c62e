"""The client's calls against DynamoDB Local, through the fault proxy, and its HTTP and TLS against scripted servers."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from whimbrel_api.base import SecretKeyRef, SecretRef, Tls, TlsMode
from whimbrel_api.endpoints import DynamoDBSource, DynamoDBTarget
from whimbrel_testbed.certificates import make_authority
from whimbrel_testbed.dynamodb.faults import Call, Cut, Delay, Fault, LoseReply, Refuse, Throttle
from whimbrel_testbed.dynamodb.local import DynamoDBServer
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_testbed.polardb.server import PolarDBServer
from whimbrel_worker.endpoints.dynamodb.calls.access import Access, of_source, of_target
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused, RightMissing, SignInRefused
from whimbrel_worker.endpoints.dynamodb.calls.retries import Patience, Throttled, Unanswered, Unreachable
from whimbrel_worker.endpoints.dynamodb.calls.wire import Lost, NotHTTP, Wire
from whimbrel_worker.engine.retry import Backoff
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.values.items import batch_write_body, cut_page

_QUICK = Patience(20.0, Backoff(base=0.01, cap=0.05, attempts=6))
_SECRET = "keys"


@pytest.fixture
def secrets(dynamodb: DynamoDBServer, tmp_path: Path) -> Secrets:
    facts = dynamodb.facts()
    write_keys(tmp_path, facts["accessKeyId"], facts["secretAccessKey"])
    return Secrets({_SECRET: str(tmp_path)})


def write_keys(folder: Path, key: str, secret: str, token: str | None = None) -> None:
    (folder / "accessKeyId").write_text(key + "\n")
    (folder / "secretAccessKey").write_text(secret + "\n")
    if token is not None:
        (folder / "sessionToken").write_text(token)


def connect(endpoint: str, secrets: Secrets, **more: Any) -> Client:
    return Client(Access(endpoint, "us-east-1", secrets, _SECRET), **{"patience": _QUICK, **more})


@pytest.fixture
def table(dynamodb: DynamoDBServer, secrets: Secrets, dynamodb_prefix: str) -> str:
    name = f"{dynamodb_prefix}items"
    connect(dynamodb.endpoint, secrets).ask(
        "CreateTable",
        {
            "TableName": name,
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
        },
    )
    return name


@pytest.fixture
def proxy(dynamodb: DynamoDBServer) -> Iterator[DynamoDBProxy]:
    with DynamoDBProxy(dynamodb.facts()) as server:
        yield server


def first_times(times: int, fault: Fault, operation: str) -> Callable[[Call], Fault | None]:
    """The fault for the first calls of an operation."""
    seen = 0

    def rule(call: Call) -> Fault | None:
        nonlocal seen
        seen += call.operation == operation
        return fault if call.operation == operation and seen <= times else None

    return rule


def put(table: str, value: str, **more: object) -> bytes:
    return orjson.dumps({"TableName": table, "Item": {"pk": {"S": "a"}, "v": {"S": value}}, **more})


# --- calls ---


def test_items_go_through_as_bytes(dynamodb: DynamoDBServer, secrets: Secrets, table: str) -> None:
    client = connect(dynamodb.endpoint, secrets)
    long = "1234567890123456789012345678901234567.8"
    items = [
        b'{"pk":{"S":"%d"},"n":{"N":"%s"},"s":{"S":"}},{\\"\\u00e9"},"l":{"L":[{"M":{"x":{"NULL":true}}}]}}'
        % (n, long.encode())
        for n in range(60)
    ]
    for start in range(0, 60, 25):
        reply = client.call("BatchWriteItem", batch_write_body(table, items[start : start + 25]))
        assert orjson.loads(reply)["UnprocessedItems"] == {}
    page = cut_page(client.call("Scan", orjson.dumps({"TableName": table, "ConsistentRead": True})))
    by_key = {item["pk"]["S"]: item for item in map(json.loads, page.items)}
    assert by_key == {item["pk"]["S"]: item for item in map(json.loads, items)}
    assert by_key["7"]["n"]["N"] == long
    assert (client.tally.connections, client.tally.retries) == (1, 0)


def test_refusals_are_for_the_caller(dynamodb: DynamoDBServer, secrets: Secrets, table: str) -> None:
    client = connect(dynamodb.endpoint, secrets)
    with pytest.raises(Refused) as missing:
        client.ask("DescribeTable", {"TableName": "not-there"})
    assert missing.value.code == "ResourceNotFoundException"
    client.call("PutItem", put(table, "secret value"))
    with pytest.raises(Refused) as condition:
        client.call("PutItem", put(table, "b", ConditionExpression="attribute_not_exists(pk)"))
    assert condition.value.code == "ConditionalCheckFailedException"
    assert "secret value" not in str(condition.value)


def test_streams_are_asked_in_their_own_words(dynamodb: DynamoDBServer, secrets: Secrets, table: str) -> None:
    client = connect(dynamodb.endpoint, secrets)
    assert client.streams().ask("ListStreams", {"TableName": table})["Streams"] == []
    assert abs(client.clock() - time.time()) < 5


def test_many_threads_share_few_connections(dynamodb: DynamoDBServer, secrets: Secrets, table: str) -> None:
    client = connect(dynamodb.endpoint, secrets, connections=3)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: client.call("PutItem", put(table, "x")), range(60)))
    assert 1 <= client.tally.connections <= 3


# --- faults ---


def test_throttled_calls_are_tried_again_and_counted(proxy: DynamoDBProxy, secrets: Secrets, table: str) -> None:
    client = connect(proxy.endpoint, secrets)
    told: list[Transient] = []
    proxy.rule = first_times(3, Throttle("ThrottlingException"), "PutItem")
    client.call("PutItem", put(table, "x"), heard=told.append)
    assert (client.tally.retries, client.tally.throttled) == (3, 3)
    assert [type(failure) for failure in told] == [Throttled] * 3


def test_patience_ends_in_what_may_be_tried_again_later(proxy: DynamoDBProxy, secrets: Secrets, table: str) -> None:
    proxy.rule = first_times(99, Throttle(), "PutItem")
    with pytest.raises(Transient, match="ProvisionedThroughputExceededException"):
        connect(proxy.endpoint, secrets).call("PutItem", put(table, "x"))
    assert len(proxy.calls("PutItem")) == 7


def test_a_worker_told_to_stop_does_not_sleep_on(proxy: DynamoDBProxy, secrets: Secrets, table: str) -> None:
    stop, patient = threading.Event(), Patience(600.0, Backoff(base=600.0, cap=600.0, attempts=3))
    proxy.rule = first_times(99, Throttle(), "PutItem")
    client = connect(proxy.endpoint, secrets, stop=stop, patience=patient)
    began = time.monotonic()
    with pytest.raises(Throttled):
        client.call("PutItem", put(table, "x"), heard=lambda _: stop.set())
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("fault", [LoseReply(), Cut(), Refuse(500, "InternalServerError", "no")])
def test_a_lost_reply_is_asked_for_again_where_that_is_harmless(
    proxy: DynamoDBProxy, secrets: Secrets, table: str, fault: Fault
) -> None:
    client = connect(proxy.endpoint, secrets)
    proxy.rule = first_times(2, fault, "PutItem")
    client.call("PutItem", put(table, "x"))
    assert len(proxy.calls("PutItem")) == 3
    assert client.tally.retries == 2


@pytest.mark.parametrize(
    ("fault", "there"), [(LoseReply(), True), (Cut(), False), (Refuse(500, "InternalServerError", "no"), False)]
)
def test_a_condition_is_never_asked_twice(
    proxy: DynamoDBProxy, secrets: Secrets, table: str, fault: Fault, there: bool
) -> None:
    client = connect(proxy.endpoint, secrets)
    proxy.rule = first_times(1, fault, "PutItem")
    with pytest.raises(Unanswered):
        client.call("PutItem", put(table, "x", ConditionExpression="attribute_not_exists(pk)"))
    assert len(proxy.calls("PutItem")) == 1
    found = client.ask("GetItem", {"TableName": table, "Key": {"pk": {"S": "a"}}, "ConsistentRead": True})
    assert ("Item" in found) is there


def test_throttled_conditions_are_tried_again(proxy: DynamoDBProxy, secrets: Secrets, table: str) -> None:
    proxy.rule = first_times(2, Throttle(), "PutItem")
    body = put(table, "x", ConditionExpression="attribute_not_exists(pk)")
    connect(proxy.endpoint, secrets).call("PutItem", body)
    assert len(proxy.calls("PutItem")) == 3


def test_a_slow_service_is_waited_for(proxy: DynamoDBProxy, secrets: Secrets, table: str) -> None:
    proxy.rule = first_times(1, Delay(0.3), "PutItem")
    client = connect(proxy.endpoint, secrets)
    client.call("PutItem", put(table, "x"))
    assert client.tally.retries == 0


def test_all_connections_cut_while_idle(proxy: DynamoDBProxy, secrets: Secrets, table: str) -> None:
    client = connect(proxy.endpoint, secrets)
    for _ in range(3):
        client.call("UpdateItem", orjson.dumps({"TableName": table, "Key": {"pk": {"S": "a"}}}))
        assert client.tally.retries == 0
        proxy.cut_all()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nobody_there(secrets: Secrets) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unreachable, match="cannot be reached"):
        connect(f"http://127.0.0.1:{port}", secrets).ask("ListTables", {})


# --- signing in ---


def test_a_missing_permission_is_named(proxy: DynamoDBProxy, secrets: Secrets) -> None:
    proxy.rule = first_times(9, Refuse(400, "AccessDeniedException", "User: x is not authorized"), "DescribeTable")
    with pytest.raises(RightMissing) as missing:
        connect(proxy.endpoint, secrets).ask("DescribeTable", {"TableName": "x"})
    assert missing.value.action == "dynamodb:DescribeTable"
    assert f"Secret {_SECRET}" in str(missing.value)


def test_a_rotated_secret_counts_at_once(proxy: DynamoDBProxy, secrets: Secrets, tmp_path: Path) -> None:
    client = connect(proxy.endpoint, secrets)
    client.ask("ListTables", {})
    proxy.rule = first_times(1, Refuse(400, "ExpiredTokenException", "The security token is expired"), "ListTables")
    write_keys(tmp_path, "NEWKEY", "new", "new-token")
    client.ask("ListTables", {})
    proxy.rule = first_times(9, Refuse(400, "ExpiredTokenException", "The security token is expired"), "ListTables")
    with pytest.raises(SignInRefused) as refused:
        client.ask("ListTables", {})
    assert refused.value.expired
    assert f"renew the keys and sessionToken in Secret {_SECRET}" in str(refused.value)
    assert "new-token" not in str(refused.value)


def test_wrong_keys_of_polardb(polardb: PolarDBServer, tmp_path: Path) -> None:
    """PolarDB: an account's name and its password; unlike DynamoDB Local it checks signatures."""
    facts, secrets = polardb.facts(), Secrets({_SECRET: str(tmp_path)})
    write_keys(tmp_path, facts["accessKeyId"], "wrong")
    client = connect(polardb.endpoint, secrets)
    with pytest.raises(SignInRefused, match=f"correct accessKeyId and secretAccessKey in Secret {_SECRET}"):
        client.ask("ListTables", {})
    write_keys(tmp_path, facts["accessKeyId"], facts["secretAccessKey"])
    assert "TableNames" in client.ask("ListTables", {"Limit": 1})


@pytest.mark.parametrize("key", ["a b", "a\nHost: x", "", "ключ"])
def test_keys_that_are_none(dynamodb: DynamoDBServer, secrets: Secrets, tmp_path: Path, key: str) -> None:
    write_keys(tmp_path, key, "s")
    with pytest.raises(ConfigurationError, match="accessKeyId in Secret keys is no key"):
        connect(dynamodb.endpoint, secrets).ask("ListTables", {})


def test_the_processs_own_identity(dynamodb: DynamoDBServer, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = dynamodb.facts()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", facts["accessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", facts["secretAccessKey"])
    spec = DynamoDBSource(region="us-east-1", endpoint=dynamodb.endpoint)
    assert "TableNames" in Client(of_source(spec, Secrets({}))).ask("ListTables", {})


def test_an_assumed_role_is_assumed_once(monkeypatch: pytest.MonkeyPatch, secrets: Secrets) -> None:
    given = (
        b"<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ROLEKEY</AccessKeyId><SecretAccessKey>s"
        b"</SecretAccessKey><SessionToken>roletoken</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
        b"</Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )
    with scripted([[_framed(given)]]) as sts, scripted([[_framed(b"{}"), _framed(b"{}")]]) as tables:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.endpoint)
        spec = DynamoDBSource(
            region="us-east-1",
            endpoint=tables.endpoint,
            credentials_secret_ref=SecretRef(name=_SECRET),
            role_arn="arn:aws:iam::123456789012:role/mover",
        )
        client = Client(of_source(spec, secrets), patience=_QUICK)
        assert [client.ask("ListTables", {}), client.ask("ListTables", {})] == [{}, {}]
    assert b"mover" in sts.heard[0]
    assert len(tables.heard) == 2
    assert all(b"ROLEKEY" in request and b"roletoken" in request for request in tables.heard)


def test_whose_keys_they_are_is_asked_of_sts(monkeypatch: pytest.MonkeyPatch, secrets: Secrets) -> None:
    session = "arn:aws:sts::123456789012:assumed-role/mover/whimbrel"
    answer = (
        "<GetCallerIdentityResponse><GetCallerIdentityResult>"
        f"<Arn>{session}</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>"
    )
    with scripted([[_framed(answer.encode())]]) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.endpoint)
        assert connect("http://127.0.0.1:9", secrets).principal() == session
    assert b"GetCallerIdentity" in sts.heard[0]
    with pytest.raises(ConfigurationError, match="does not tell whose keys these are"):
        connect("http://127.0.0.1:9", secrets).principal()


# --- HTTP and TLS ---


def _framed(body: bytes, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), head, body)


class Scripted:
    """A server that answers the requests of its n-th connection with the n-th script, then closes it."""

    def __init__(
        self, listening: socket.socket, scripts: Sequence[Sequence[bytes]], tls: ssl.SSLContext | None
    ) -> None:
        self.listening, self.scripts, self.tls = listening, scripts, tls
        self.heard: list[bytes] = []

    @property
    def port(self) -> int:
        return int(self.listening.getsockname()[1])

    @property
    def endpoint(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def serve(self) -> None:
        for script in self.scripts:
            try:
                plain, _ = self.listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), plain:
                connection = plain if self.tls is None else self.tls.wrap_socket(plain, server_side=True)
                with connection:
                    self._answer(connection, script)

    def _answer(self, connection: socket.socket, script: Sequence[bytes]) -> None:
        for reply in script:
            self.heard.append(_request(connection))
            piece = max(7, len(reply) // 20)
            for start in range(0, len(reply), piece):
                connection.sendall(reply[start : start + piece])


def _request(connection: socket.socket) -> bytes:
    text = b""
    while b"\r\n\r\n" not in text:
        text += connection.recv(65536)
    head, _, body = text.partition(b"\r\n\r\n")
    lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < int(lengths[0]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def scripted(scripts: Sequence[Sequence[bytes]], tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Scripted(listening, scripts, tls)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        yield server
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
)


@pytest.mark.parametrize(
    ("replies", "bodies"),
    [
        ([[_framed(b"one"), _framed(b"two")]], [b"one", b"two"]),
        ([[_framed(b"ab" * 1_500_000), _framed(b"two")]], [b"ab" * 1_500_000, b"two"]),
        ([[_CHUNKED, _framed(b"two")]], [b"abc0123456789", b"two"]),
        ([[_framed(b"one", b"Connection: close\r\n")], [_framed(b"two")]], [b"one", b"two"]),
        ([[b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1"], [_framed(b"")]], [b"1", b""]),
    ],
)
def test_replies_in_every_framing(replies: list[list[bytes]], bodies: list[bytes]) -> None:
    with scripted(replies) as server:
        wire = Wire("127.0.0.1", server.port, None, 2)
        assert [wire.exchange({}, b"").body for _ in bodies] == bodies
        wire.close()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", Lost),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", Lost),
        (b"HTTP/1.1 200 OK\r\nContent-Le", Lost),
        (_framed(b"0123456789")[:-1], Lost),
        (b"EFATAL: unsupported frontend protocol\r\n\r\n", NotHTTP),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Lost),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", Lost),
        (b"x" * (1 << 17), NotHTTP),
    ],
)
def test_replies_that_are_none(reply: bytes, error: type[Exception]) -> None:
    with scripted([[reply]]) as server:
        wire = Wire("127.0.0.1", server.port, None, 1)
        with pytest.raises(error):
            wire.exchange({}, b"")


def _server_context(folder: Path, names: Sequence[str]) -> ssl.SSLContext:
    folder.mkdir()
    certificate, key = make_authority(folder).server_certificate(names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _https(server: Scripted, secrets: Secrets, authority: Path) -> Client:
    spec = DynamoDBTarget(
        endpoint=server.endpoint,
        credentials_secret_ref=SecretRef(name=_SECRET),
        tls=Tls(ca_secret_ref=SecretKeyRef(name="authority")),
    )
    return Client(of_target(spec, Secrets({**secrets.directories, "authority": str(authority)})), patience=_QUICK)


def test_the_secrets_authority_is_trusted(secrets: Secrets, tmp_path: Path) -> None:
    context = _server_context(tmp_path / "ours", ["127.0.0.1"])
    with scripted([[_framed(b'{"TableNames":[]}')]], context) as server:
        assert _https(server, secrets, tmp_path / "ours").ask("ListTables", {}) == {"TableNames": []}


def test_another_authority_and_another_host_name_are_refused(secrets: Secrets, tmp_path: Path) -> None:
    ours, elsewhere = (
        _server_context(tmp_path / name, [host]) for name, host in (("a", "127.0.0.1"), ("b", "db.example"))
    )
    for context, authority in ((ours, "b"), (elsewhere, "b")):
        with (
            scripted([[]], context) as server,
            pytest.raises(ConfigurationError, match=r"CERTIFICATE_VERIFY_FAILED.*check tls\.caSecretRef"),
        ):
            _https(server, secrets, tmp_path / authority).ask("ListTables", {})


def test_an_authority_that_is_none(secrets: Secrets, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    spec = DynamoDBSource(region="us-east-1", tls=Tls(ca_secret_ref=SecretKeyRef(name=_SECRET)))
    with pytest.raises(ConfigurationError, match="the authority's certificate cannot be read"):
        Client(of_source(spec, secrets))


def test_https_towards_a_port_without_tls(dynamodb: DynamoDBServer, secrets: Secrets) -> None:
    with pytest.raises(ConfigurationError, match="http or https"):
        connect(dynamodb.endpoint.replace("http:", "https:"), secrets).ask("ListTables", {})


def test_tls_is_never_left_out_silently(secrets: Secrets) -> None:
    access = Access("https://x", "us-east-1", secrets, _SECRET, tls=Tls(mode=TlsMode.DISABLED))
    with pytest.raises(ConfigurationError, match="contradict each other"):
        Client(access)
