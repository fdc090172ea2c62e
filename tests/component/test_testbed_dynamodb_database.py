"""Where a DynamoDB Local keeps its database, what is left of it, and that its streams stay fast."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support.dynamodb_tables import STREAM, make_table, stream_records
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.dynamodb import database, local
from whimbrel_testbed.dynamodb.client import dynamodb_client, table_names
from whimbrel_testbed.dynamodb.local import DynamoDBServer, dynamodb_server
from whimbrel_testbed.processes import Child


def test_a_durable_server_has_its_items_after_a_crash() -> None:
    with dynamodb_server(durable=True) as server:
        client = dynamodb_client(server.facts())
        name = make_table(client, "kept", StreamSpecification=STREAM)
        client.put_item(TableName=name, Item={"pk": {"S": "1"}})
        server.kill()
        server.start()
        assert client.get_item(TableName=name, Key={"pk": {"S": "1"}})["Item"] == {"pk": {"S": "1"}}
        arn = client.describe_table(TableName=name)["Table"]["LatestStreamArn"]
        assert [record["dynamodb"]["Keys"] for record in stream_records(server, arn)] == [{"pk": {"S": "1"}}]
        directories = [server._child.directory, server._database]
    assert not any(directory.exists() for directory in directories if directory)


def write_batches(client: Any, table: str, numbers: range) -> None:
    """Put the items whose keys are these numbers, 25 a call."""
    for start in numbers[::25]:
        batch = [{"PutRequest": {"Item": {"pk": {"S": str(number)}}}} for number in range(start, start + 25)]
        assert not client.batch_write_item(RequestItems={table: batch})["UnprocessedItems"]


def processor_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def batch_seconds(server: DynamoDBServer, table: str, numbers: range) -> float:
    """The server's processor time for one of the batches that put the items of these numbers."""
    before = processor_seconds(server.pid)
    write_batches(dynamodb_client(server.facts()), table, numbers)
    return (processor_seconds(server.pid) - before) / (len(numbers) / 25)


needs_memory = pytest.mark.skipif(database.memory_directory() is None, reason="no file system in memory with room")


@needs_memory
def test_streams_stay_fast_and_whole_however_many_records_others_have() -> None:
    """Without the indexes a batch costs several times as much after 10,000 records of another table."""
    with dynamodb_server() as server:
        client = dynamodb_client(server.facts())
        first = make_table(client, "first", StreamSpecification=STREAM)
        write_batches(client, first, range(9000))
        usual = batch_seconds(server, first, range(9000, 10000))
        second = make_table(client, "second", StreamSpecification=STREAM)
        spent = batch_seconds(server, second, range(250))
        told = f"{1000 * usual:.0f} and then {1000 * spent:.0f} ms of the processor for a batch"
        print(f"{told}; load {os.getloadavg()[0]:.1f}")
        assert spent < 2 * usual, told
        for table, count in ((first, 10000), (second, 250)):
            arn = client.describe_table(TableName=table)["Table"]["LatestStreamArn"]
            keys = [record["dynamodb"]["Keys"]["pk"]["S"] for record in stream_records(server, arn)]
            assert keys == [str(number) for number in range(count)]


@needs_memory
def test_another_start_finds_nothing_unless_durable() -> None:
    with dynamodb_server() as server:
        assert server._database is not None
        assert server._database.parent == database.SHARED_MEMORY
        client = dynamodb_client(server.facts())
        make_table(client, "gone", StreamSpecification=STREAM)
        server.kill()
        (server._database / "shared-local-instance.db-journal").write_bytes(b"left by a crash")
        server.start()
        assert list(table_names(client)) == []
        write_batches(client, make_table(client, "gone", StreamSpecification=STREAM), range(25))
        directory = server._database
    assert not directory.exists()


def test_a_server_runs_where_no_file_system_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "memory_directory", lambda: None)
    with dynamodb_server(durable=True) as server:
        assert server._database == server._child.directory
        client = dynamodb_client(server.facts())
        make_table(client, "kept")
        server.restart()
        assert list(table_names(client)) == ["kept"]
    child = Child("dynamodb")
    try:
        assert local._database_directory(child, durable=False, streams=True) is None
    finally:
        child.close()


@needs_memory
def test_a_server_without_fast_streams_keeps_its_items_to_itself() -> None:
    child = Child("dynamodb")
    try:
        assert local._database_directory(child, durable=False, streams=False) is None
        kept = local._database_directory(child, durable=True, streams=False)
        assert kept == database.SHARED_MEMORY / child.directory.name
    finally:
        child.close()
    assert not kept.exists()


def test_memory_with_too_little_room_or_another_file_system_is_not_used(tmp_path: Path) -> None:
    assert database.memory_directory(database.SHARED_MEMORY, 1 << 60) is None
    assert database.memory_directory(Path("/proc"), 0) is None
    assert database.memory_directory(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("place", "kind"),
    [("/dev/shm/a", "tmpfs"), ("/dev/shmem", "devtmpfs"), ("/b", "xfs"), ("/over", "xfs"), ("/over/c", "xfs")],
)
def test_the_file_system_of_a_path_is_its_nearest_mounts(place: str, kind: str) -> None:
    points = "/ overlay", "/ xfs", "/dev devtmpfs", "/dev/shm tmpfs", "/over tmpfs", "/over xfs"
    mounts = "".join(f"some {point} rw 0 0\n" for point in points)
    assert database.file_system(Path(place), mounts) == kind


def test_a_database_of_other_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"takes no indexes .*unable to open"):
        database.index_streams(tmp_path)
    (tmp_path / "shared-local-instance.db").touch()
    with pytest.raises(TestbedError, match=r"takes no indexes .*no such table: .*us"):
        database.index_streams(tmp_path)
