"""A real DynamoDB Local on loopback, started without its own main class, which would listen on every address.

Jetty's XML starts the same handler behind a connector of the loopback address; so nothing of its telemetry is loaded
either, and the jars that this would need are not even fetched.
"""

from __future__ import annotations

import secrets
import string
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from whimbrel_testbed import pins
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.dynamodb.database import index_streams, memory_directory, remove_database
from whimbrel_testbed.dynamodb.jars import jars_directory
from whimbrel_testbed.dynamodb.java import java_program
from whimbrel_testbed.processes import HOST, Child, Served, free_port

REGION: Final = "us-east-1"
_START_ATTEMPTS: Final = 3
_IN_USE: Final = "Address already in use"
_FLAGS: Final = (
    "-Xms32m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData",
    "--enable-native-access=ALL-UNNAMED", "-Djava.net.preferIPv4Stack=true", "-Djava.awt.headless=true",
    # Its XML names no schema, so there is none to check it by.
    "-Dorg.eclipse.jetty.xml.XmlParser.Validating=false",
)  # fmt: skip
_LAUNCHER: Final = "org.eclipse.jetty.xml.XmlConfiguration"
_PACKAGE: Final = "software.amazon.dynamodb.services.local.server"
_CONFIGURATION: Final = """<?xml version="1.0" encoding="UTF-8"?>
<Configure id="Server" class="org.eclipse.jetty.server.Server">
  <Call name="addConnector"><Arg><New class="org.eclipse.jetty.server.ServerConnector">
    <Arg><Ref refid="Server"/></Arg>
    <Set name="host">{host}</Set>
    <Set name="port">{port}</Set>
  </New></Arg></Call>
  <Set name="handler"><New class="org.eclipse.jetty.server.handler.ContextHandler">
    <Set name="handler"><New class="{package}.LocalDynamoDBServerHandler">
      <Arg><New class="{package}.LocalDynamoDBRequestHandler">
        <Arg type="int">0</Arg>
        <Arg type="boolean">{in_memory}</Arg>
        {directory}
        <Arg type="boolean">true</Arg>
        <Arg type="boolean">false</Arg>
      </New></Arg>
      <Arg/>
    </New></Set>
  </New></Set>
</Configure>
"""
"""The handler's arguments: port (unused), in memory, directory of the database, one database for all keys and regions,
transient table states (CREATING for some seconds)."""


@dataclass(frozen=True)
class DynamoDBServer(Served):
    """A running DynamoDB Local. It takes any well-formed signature; the keys are new for each all the same."""

    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    version: str
    _child: Child = field(repr=False)
    _command: tuple[str, ...] = field(repr=False)
    _database: Path | None = field(repr=False)
    _durable: bool = field(repr=False)

    def facts(self) -> dict[str, str]:
        """Return what a client needs, under the names of the command line's JSON."""
        return {
            "endpoint": self.endpoint, "region": self.region, "accessKeyId": self.access_key_id,
            "secretAccessKey": self.secret_access_key,
        }  # fmt: skip

    def stop(self) -> None:
        """Shut down. The items stay for `start` only where the server was made with `durable`."""
        self._child.stop()

    def kill(self) -> None:
        """End at once, as a crash would."""
        self._child.kill()

    def start(self) -> None:
        """Start again on the same port: with its items where `durable` was asked for, else empty."""
        self._child.log.unlink(missing_ok=True)
        if self._database is not None and not self._durable:
            remove_database(self._database)
        self._child.start(self._command, self._answers)
        if self._database is not None:
            # The first answered call made the tables, and nobody else knows the server yet.
            index_streams(self._database)

    def _answers(self) -> bool:
        """Whether a signed ListTables is answered; TestbedError where the port is another program's."""
        if _IN_USE in self._child.log_tail(lines=200):
            self._child.kill()
            raise TestbedError(f"{_IN_USE}: {self.endpoint}")
        try:
            return lists_tables(self.facts())
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def dynamodb_server(*, durable: bool = False, streams: bool = True) -> Iterator[DynamoDBServer]:
    """Run a DynamoDB Local of one's own until the context ends; then its process and directory are gone.

    The items are in a file that only with `durable` outlives `stop`, `kill` and `start`. It is in a file system in
    memory, with indexes for its streams (see `database`); where there is none, a durable server's is on disk, and the
    others have their items in their own memory, where streams get slower with each record. Without `streams` (they
    work, but may be slow) the items are there too: loading many then takes half the processor time. One database serves
    all keys and regions. Raises TestbedError where it cannot be fetched or started.
    """
    jars, java = jars_directory(), java_program()
    child = Child("dynamodb")
    try:
        yield _start(child, jars, java, _database_directory(child, durable=durable, streams=streams), durable=durable)
    finally:
        child.close()


def _start(child: Child, jars: Path, java: Path, database: Path | None, *, durable: bool) -> DynamoDBServer:
    for attempt in range(_START_ATTEMPTS):
        port = free_port()
        configuration = child.directory / f"server-{port}.xml"
        configuration.write_text(server_configuration(port, database), encoding="utf-8")
        # It unpacks SQLite's library into the temporary directory; so that goes with the server's own.
        command = (
            str(java), *_FLAGS, f"-Djava.io.tmpdir={child.directory}", "-cp", f"{jars}/*", _LAUNCHER,
            str(configuration),
        )  # fmt: skip
        server = DynamoDBServer(
            f"http://{HOST}:{port}", REGION, _access_key(), secrets.token_urlsafe(30), pins.DYNAMODB_LOCAL, child,
            command, database, durable,
        )  # fmt: skip
        try:
            server.start()
        except TestbedError as error:
            if _IN_USE not in str(error) or attempt == _START_ATTEMPTS - 1:
                raise
            continue
        return server
    raise AssertionError("unreachable: the last attempt returns or raises")


def _database_directory(child: Child, *, durable: bool, streams: bool) -> Path | None:
    memory = memory_directory() if durable or streams else None
    if memory is not None:
        return child.directory_in(memory)
    return child.directory if durable else None


def server_configuration(port: int, directory: Path | None) -> str:
    """Return Jetty's XML for a server on loopback; `directory` keeps the items in a file there, None in memory."""
    place = "<Arg/>" if directory is None else f"<Arg>{escape(str(directory))}</Arg>"
    in_memory = "true" if directory is None else "false"
    return _CONFIGURATION.format(host=HOST, port=port, package=_PACKAGE, in_memory=in_memory, directory=place)


def _access_key() -> str:
    # DynamoDB Local refuses an access key with anything but letters and digits.
    return "AKIA" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(16))


def lists_tables(facts: Mapping[str, str]) -> bool:
    """Say whether an endpoint answers a signed ListTables with 200; URLError or OSError where nobody is there."""
    headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.ListTables"}
    request = AWSRequest("POST", facts["endpoint"] + "/", headers=headers, data=b'{"Limit": 1}')
    SigV4Auth(Credentials(facts["accessKeyId"], facts["secretAccessKey"]), "dynamodb", facts["region"]).add_auth(
        request
    )
    sent = urllib.request.Request(facts["endpoint"] + "/", request.body, dict(request.headers), method="POST")  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(sent, timeout=5) as answer:
            return int(answer.status) == 200
    except urllib.error.HTTPError:
        return False
