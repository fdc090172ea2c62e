"""A session's promises: exactly once, under its own control row, whatever the connection does."""

import threading
import time
from dataclasses import replace

import pytest

from support.succession import attempts_of_sessions_at_once, require_fence_of_a_raised_epoch
from support.targets import ITEMS, TargetCase, prepared, rows_of
from whimbrel_worker.endpoints.postgres.target import PostgresTarget
from whimbrel_worker.engine.ports import Chunk, ChunkProgress, Delete, Insert, TableRow, Upsert
from whimbrel_worker.errors import FencedOut, Incompatible, Transient, WorkerError


@pytest.mark.parametrize("path", ["copy", "unnest", "values"])
def test_hostile_cells_arrive_as_they_were_sent(case: TargetCase, path: str) -> None:
    if case.control is not None:
        case.control.set(copy_supported=path == "copy")
    target = prepared(case)
    target._write_path = path
    session = target.session("snapshot", 0)
    session.take()
    rows = [
        (1, b'a"b\\c\t\n\r,{}', b"\x00\xff\\", b"1.50", 1.5),
        (2, "😀 é".encode(), b"", b"-0.01", -0.0),
        (3, b"", None, None, None),
        (4, b"NULL", b"\\N", b"0.00", 1e300),
        (5, b"\\N", b'"', b"999.99", 5e-324),
    ]
    session.commit([Insert(ITEMS, rows)], position="p1")
    found = case.look('SELECT id, name, data, price, weight FROM shop."it""e%ms" ORDER BY id')
    expected = [
        (1, 'a"b\\c\t\n\r,{}', b"\x00\xff\\", "1.50", 1.5),
        (2, "😀 é", b"", "-0.01", 0.0),
        (3, "", None, "None", None),
        (4, "NULL", b"\\N", "0.00", 1e300),
        (5, "\\N", b'"', "999.99", 5e-324),
    ]
    assert [(i, n, d, str(p), w) for i, n, d, p, w in found] == expected


def test_upsert_replaces_and_delete_takes_absent_keys(case: TargetCase) -> None:
    target = prepared(case)
    session = target.session("stream", 0)
    session.take()
    session.commit([Upsert(ITEMS, rows_of(range(10), b"old"))])
    session.commit([Delete(ITEMS, [(3,), (99,)]), Upsert(ITEMS, rows_of([4, 11], b"new"))])
    found = {row[0]: row[1] for row in case.look('SELECT id, name FROM shop."it""e%ms"')}
    assert 3 not in found
    assert (found[4], found[11], found[5]) == ("new", "new", "old")


def test_a_successor_fences_the_old_session_out(case: TargetCase) -> None:
    target = prepared(case)
    old, new = target.session("stream", 0), target.session("stream", 0)
    old.take()
    old.commit([Upsert(ITEMS, rows_of([1], b"old"))], position="p1")
    assert new.take().position == "p1"
    with pytest.raises(FencedOut, match="another worker holds the control row"):
        old.commit([Upsert(ITEMS, rows_of([1], b"zombie"))], position="p2")
    assert case.look('SELECT name FROM shop."it""e%ms"') == [("old",)]
    new.commit([Upsert(ITEMS, rows_of([1], b"new"))], position="p2")
    assert target.control().positions("stream") == {0: "p2"}


def test_a_raised_epoch_fences_everybody_out(case: TargetCase) -> None:
    late = [Upsert(ITEMS, rows_of([1], b"late"))]
    require_fence_of_a_raised_epoch(prepared(case), case.target(epoch=2), lambda session: session.commit(late))


def test_two_sessions_that_take_one_row_at_once_get_different_attempts(case: TargetCase) -> None:
    assert attempts_of_sessions_at_once(prepared(case)) == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lost_replies_to_commit_neither_lose_nor_repeat(dsql_case: TargetCase, seed: int) -> None:
    print(f"seed {seed}")
    target = prepared(dsql_case)
    session = target.session("stream", 0)
    session.take()
    dsql_case.dials.set(drop_after_commit=0.3, drop_before_commit=0.1, conflict_rate=0.1, seed=seed)
    # A ladder that only holds when every transaction happened exactly once and in order.
    for step in range(1, 31):
        session.commit([Delete(ITEMS, [(step - 1,)]), Insert(ITEMS, rows_of([step], b"x"))], position=f"p{step}")
    dsql_case.dials.set(drop_after_commit=0.0, drop_before_commit=0.0, conflict_rate=0.0)
    assert dsql_case.look('SELECT id FROM shop."it""e%ms"') == [(30,)]
    assert target.control().positions("stream") == {0: "p30"}
    assert target.tally.retries > 0


def test_a_stopped_session_with_an_open_transaction_blocks_nobody_for_long(dsql_case: TargetCase) -> None:
    target = prepared(dsql_case)
    session = target.session("stream", 0)
    session.take()
    connection = session._kept.get()
    connection.execute("BEGIN")
    connection.execute("UPDATE whimbrel.workers SET sequence = sequence + 1 WHERE task = 'stream'")
    successor = target.session("stream", 0)
    successor.take()
    successor.commit([Upsert(ITEMS, rows_of([1], b"new"))], position="p1")
    with pytest.raises(FencedOut):
        session.commit([Upsert(ITEMS, rows_of([1], b"zombie"))])
    assert dsql_case.look('SELECT name FROM shop."it""e%ms"') == [("new",)]


def test_a_value_the_target_refuses_names_its_table_and_leaves_nothing(case: TargetCase) -> None:
    target = prepared(case)
    session = target.session("stream", 0)
    session.take()
    with pytest.raises(Incompatible) as refused:
        session.commit([Upsert(ITEMS, [(1, b"fine", None, None, None), (2, b"\x00", None, None, None)])], position="p1")
    assert refused.value.where == ITEMS.name
    session.commit([Upsert(ITEMS, rows_of([3], b"after"))], position="p2")
    assert case.look('SELECT id FROM shop."it""e%ms"') == [(3,)]


def test_connections_are_retired_before_the_server_ends_them(dsql_case: TargetCase) -> None:
    """Scaled down from an hour: the server ends sessions at 1.2 s, and every connection goes at five sixths of that."""
    assert dsql_case.profile.connection_max_age <= 55 * 60
    age = 1.2
    before = dsql_case.dials.dials()
    dsql_case.dials.set(max_session_seconds=age)
    young = replace(dsql_case, profile=replace(dsql_case.profile, connection_max_age=age * 5 / 6))
    target = prepared(young)
    control, session, schema = target.control(), target.session("stream", 0), target.schema()
    session.take()
    opened, until, number = target.tally.connections, time.monotonic() + 3.5 * age, 0
    with target.reader() as reader:
        while time.monotonic() < until:
            number += 1
            session.commit([Upsert(ITEMS, rows_of([number], b"x"))], position=f"p{number}")
            assert reader.count(ITEMS) == number
            assert control.positions("stream") == {0: f"p{number}"}
            assert schema.existing(ITEMS) is not None
    dsql_case.dials.set(**before)
    assert target.tally.connections >= opened + 3
    assert target.tally.retries == 0, "no connection was ended by the server"


@pytest.mark.parametrize("path", ["copy", "unnest", "values"])
def test_a_row_that_the_target_leaves_out_in_silence_is_noticed(
    postgres_case: TargetCase, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger of the target drops one row of a batch: the row count says so, and nothing of the batch stays."""
    monkeypatch.setattr("whimbrel_worker.engine.retry.time.sleep", lambda _: None)
    target = prepared(postgres_case)
    target._write_path = path
    postgres_case.change(
        "CREATE FUNCTION shop.leave_out() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.id = 2 THEN RETURN NULL; END IF; RETURN NEW; END $$"
    )
    postgres_case.change(
        'CREATE TRIGGER t BEFORE INSERT ON shop."it""e%ms" FOR EACH ROW EXECUTE FUNCTION shop.leave_out()'
    )
    session = target.session("stream", 0)
    session.take()
    with pytest.raises(Transient) as noticed:
        session.commit([Insert(ITEMS, rows_of([1, 2, 3], b"x"))], position="p1")
    assert "the target took 2 of 3 rows without an error" in noticed.value.what
    assert noticed.value.where == ITEMS.name
    assert noticed.value.todo
    assert postgres_case.look('SELECT id FROM shop."it""e%ms"') == []
    assert target.control().positions("stream") == {0: ""}


def test_chunk_progress_commits_with_the_rows(case: TargetCase) -> None:
    target = prepared(case)
    control = target.control()
    control.add_tables([TableRow(ITEMS.name, "Pending", 10)])
    session = target.session("snapshot", 0)
    state = session.take()
    assert control.claim_planning(0, state.attempt) == ITEMS.name
    control.add_chunks(ITEMS.name, [Chunk(ITEMS.name, 0, None, None)], last=True)
    chunk = control.claim_chunk(0, state.attempt)
    assert chunk is not None
    session.commit([Insert(ITEMS, rows_of([1, 2], b"x"))], progress=ChunkProgress(chunk, ("2",), 2, done=False))
    control.release(0, state.attempt + 1)
    again = control.claim_chunk(0, state.attempt + 1)
    assert again is not None
    assert (again.resume_after, again.rows) == (("2",), 2)
    session.take()
    session.commit([Insert(ITEMS, rows_of([3], b"x"))], progress=ChunkProgress(again, ("3",), 3, done=True))
    assert control.unfinished_chunks() == 0
    assert control.tables()[0].rows_copied == 3


def test_a_lost_workers_chunk_comes_back_and_the_worker_is_fenced(case: TargetCase) -> None:
    target = prepared(case)
    control = target.control()
    control.add_tables([TableRow(ITEMS.name, "Pending", 10)])
    lost = target.session("snapshot", 0)
    attempt = lost.take().attempt
    control.claim_planning(0, attempt)
    control.add_chunks(ITEMS.name, [Chunk(ITEMS.name, 0, None, None)], last=True)
    held = control.claim_chunk(0, attempt)
    assert held is not None
    assert control.claim_chunk(1, 1) is None
    assert control.release_lost(3600) == 0
    assert control.release_lost(0) == 1
    assert control.claim_chunk(1, 1) is not None
    with pytest.raises(FencedOut):
        lost.commit([Insert(ITEMS, rows_of([1], b"x"))], progress=ChunkProgress(held, ("1",), 1, done=True))


def test_workers_share_chunks_and_nobody_gets_one_twice(case: TargetCase) -> None:
    target = prepared(case)
    control = target.control()
    control.add_tables([TableRow(ITEMS.name, "Pending", 10)])
    control.claim_planning(0, 1)
    control.add_chunks(ITEMS.name, [Chunk(ITEMS.name, n, None, None) for n in range(24)], last=True)
    claimed: list[int] = []

    def work(index: int) -> None:
        own, session = target.control(), target.session("snapshot", index)
        attempt = session.take().attempt
        while (chunk := own.claim_chunk(index, attempt)) is not None:
            claimed.append(chunk.number)
            session.commit([], progress=ChunkProgress(chunk, None, 0, done=True))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(24))


def test_a_claim_whose_reply_was_lost_is_not_forgotten(dsql_case: TargetCase) -> None:
    """Every second reply to COMMIT is lost; at the end this worker has had every chunk, and holds none unknowingly."""
    target = prepared(dsql_case)
    control, session = target.control(), target.session("snapshot", 0)
    control.add_tables([TableRow(ITEMS.name, "Pending", 10)])
    attempt = session.take().attempt
    before = dsql_case.dials.dials()
    dsql_case.dials.set(drop_after_commit=0.5, seed=5)
    assert control.claim_planning(0, attempt) == ITEMS.name
    control.add_chunks(ITEMS.name, [Chunk(ITEMS.name, n, None, None) for n in range(6)], last=True)
    had = []
    while (chunk := control.claim_chunk(0, attempt)) is not None:
        had.append(chunk.number)
        session.commit([], progress=ChunkProgress(chunk, None, 0, done=True))
    dsql_case.dials.set(**before)
    assert sorted(had) == list(range(6))
    assert control.unfinished_chunks() == 0


def test_a_claim_of_a_former_attempt_comes_back(case: TargetCase) -> None:
    """A zombie claims a chunk after its successor gave back what it held; the successor takes that one too."""
    target = prepared(case)
    control, session = target.control(), target.session("snapshot", 0)
    control.add_tables([TableRow(ITEMS.name, "Pending", 10)])
    control.claim_planning(0, 1)
    control.add_chunks(ITEMS.name, [Chunk(ITEMS.name, 0, None, None)], last=True)
    old = session.take().attempt
    new = target.session("snapshot", 0).take().attempt
    control.release(0, new)
    assert control.claim_chunk(0, old) is not None
    taken = control.claim_chunk(0, new)
    assert taken is not None
    assert taken.number == 0
    assert control.claim_chunk(0, old) is None, "the successor's claim stays"


def test_another_source_under_the_same_name_is_refused(case: TargetCase) -> None:
    target = prepared(case)
    assert target.control().register("source-1").epoch == 1
    with pytest.raises(Exception, match="from another source"):
        target.control().register("source-2")


def test_the_record_of_a_target_without_control_tables_is_empty(case: TargetCase) -> None:
    assert not case.target().control().record().exists


def test_control_tables_are_made_once_by_whoever_comes_first(case: TargetCase) -> None:
    failures: list[WorkerError] = []

    def make() -> None:
        try:
            case.target().control().ensure()
        except WorkerError as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert case.target().control().register("source-1").exists


def test_the_start_position_of_the_first_caller_stays(case: TargetCase) -> None:
    control: PostgresTarget = prepared(case)
    assert control.control().fix_start_position("gtid-1") == "gtid-1"
    assert control.control().fix_start_position("gtid-2") == "gtid-1"
