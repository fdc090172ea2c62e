"""The control store over DynamoDB-compatible targets: what races, repeats and dies in between leaves the truth."""

import random
import threading
from dataclasses import replace
from typing import Any

import pytest

from support.item_targets import ItemCase, prepared
from whimbrel_testbed.dynamodb.faults import Call, Fault, LoseReply
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_worker.endpoints.dynamodb.control.epochs import _finish as finish
from whimbrel_worker.endpoints.dynamodb.control.epochs import raise_epoch
from whimbrel_worker.endpoints.dynamodb.control.store import DynamoDBControlStore
from whimbrel_worker.engine.ports import Chunk, ChunkProgress, TableRow
from whimbrel_worker.errors import ConfigurationError, FencedOut


def test_the_table_is_made_once_by_many(item_case: ItemCase) -> None:
    assert not item_case.target().control().record().exists
    threads = [threading.Thread(target=item_case.target().control().ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not item_case.target().control().record().exists
    record = item_case.target().control().register("source-1")
    assert (record.exists, record.source_id, record.epoch, record.plan_attempt) == (True, "source-1", 1, 1)
    assert [entry.step for entry in record.journal] == ["started"]


def test_another_source_or_layout_is_refused(item_case: ItemCase) -> None:
    control = prepared(item_case).control()
    assert [entry.step for entry in control.register("source-1").journal] == ["started"]
    with pytest.raises(ConfigurationError, match="from another source") as refused:
        control.register("source-2")
    assert "source-1" in refused.value.why
    assert refused.value.where == item_case.migration
    item_case.direct.update_item(
        TableName="whimbrel-control", Key={"migration": {"S": item_case.migration}, "entry": {"S": "migration"}},
        UpdateExpression="SET version = :v", ExpressionAttributeValues={":v": {"N": "99"}},
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="another version of Whimbrel"):
        control.register("source-1")


def test_the_first_start_position_stays(item_case: ItemCase) -> None:
    control = prepared(item_case).control()
    assert control.record().start_position == ""
    assert control.fix_start_position("p1") == "p1"
    assert control.fix_start_position("p2") == "p1"
    assert control.record().start_position == "p1"


def test_the_journal_keeps_milestones_however_many_time_outs(item_case: ItemCase) -> None:
    control = prepared(item_case).control()
    control.journal("schema-ready")
    control.journal("schema-ready")
    for number in range(105):
        control.journal("timed-out", str(number))
    steps = [entry.step for entry in control.record().journal]
    assert len(steps) == 100
    assert steps[:2] == ["started", "schema-ready"]
    control.journal_once("schema-ready")
    assert control.record().journal[-1].detail == "104"


def test_plan_attempts_only_rise(item_case: ItemCase) -> None:
    control = prepared(item_case).control()
    control.set_plan_attempt(3)
    control.set_plan_attempt(2)
    assert control.record().plan_attempt == 3


def test_a_raise_that_died_half_way_is_finished_by_the_next(
    item_case: ItemCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = prepared(item_case)
    session = target.session("stream", 3)
    session.take()

    def die(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("whimbrel_worker.endpoints.dynamodb.control.epochs.reach", die)
    with pytest.raises(KeyboardInterrupt):
        target.control().raise_epoch("switched", "plan 1")
    monkeypatch.undo()
    assert target.control().record().epoch == 2
    with pytest.raises(FencedOut, match="epoch 1 of this worker is over"):
        target.session("stream", 4).take()
    assert target.control().raise_epoch("switched", "plan 1") == 2
    record = target.control().record()
    assert (record.epoch, record.journal[-1].step, record.journal[-1].detail) == (2, "switched", "plan 1")
    with pytest.raises(FencedOut):
        session.commit([])
    assert target.control().raise_epoch("switched", "plan 1") == 2
    assert target.control().raise_epoch("cancelled", "") == 3


def test_many_that_raise_at_once_raise_one_epoch(item_case: ItemCase) -> None:
    target = prepared(item_case)
    epochs: list[int] = []
    threads = [
        threading.Thread(target=lambda: epochs.append(item_case.target().control().raise_epoch("switched", "")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert epochs == [2, 2, 2, 2]
    assert [entry.step for entry in target.control().record().journal].count("switched") == 1


def test_a_raise_between_two_looks_of_another_is_told_with_its_epoch(item_case: ItemCase) -> None:
    prepared(item_case)
    raised: list[int] = []

    def rule(call: Call) -> Fault | None:
        if call.operation == "Query" and not raised:
            raised.append(item_case.target().control().raise_epoch("switched", ""))
        return None

    with DynamoDBProxy(item_case.facts, rule) as proxy:
        found = item_case.through(proxy.endpoint).target().control().raise_epoch("switched", "")
    assert (found, raised) == (2, [2])


def test_lost_replies_change_nothing_twice(item_case: ItemCase) -> None:
    """Every second conditional update is done without its answer coming back."""
    prepared(item_case)
    updates: list[int] = []

    def rule(call: Call) -> Fault | None:
        if call.operation != "UpdateItem":
            return None
        updates.append(call.number)
        return LoseReply() if len(updates) % 2 else None

    with DynamoDBProxy(item_case.facts, rule) as proxy:
        control = item_case.through(proxy.endpoint).target().control()
        assert control.fix_start_position("p1") == "p1"
        control.journal("schema-ready")
        control.add_tables([TableRow("t", "Pending", 10)])
        assert control.raise_epoch("switched", "x") == 2
        assert control.claim_planning(0, 1) == "t"
        control.add_chunks("t", [Chunk("t", 0, None, ("1/2",)), Chunk("t", 1, ("1/2",), None)], last=True)
        first, second = control.claim_chunk(0, 1), control.claim_chunk(1, 1)
        assert first is not None
        assert second is not None
        assert {first.number, second.number} == {0, 1}
    record = item_case.target(epoch=2).control().record()
    assert [entry.step for entry in record.journal] == ["started", "schema-ready", "switched"]
    assert (record.epoch, record.chunks_total, record.chunks_done) == (2, 2, 0)


def planned(control: DynamoDBControlStore, name: str, count: int) -> None:
    control.add_tables([TableRow(name, "Pending", 100)])
    assert control.claim_planning(0, 1) == name
    bounds = [None, *[(f"{number}/{count}",) for number in range(1, count)], None]
    control.add_chunks(
        name, [Chunk(name, number, bounds[number], bounds[number + 1]) for number in range(count)], last=True
    )


def test_tables_are_planned_by_one_and_the_largest_first(item_case: ItemCase) -> None:
    control = prepared(item_case).control()
    control.add_tables([TableRow("a.b", "Pending", 10), TableRow("large", "Pending", 99), TableRow("c", "Pending", 5)])
    control.add_tables([TableRow("c", "Stopped", 7, message="not this one")])
    assert control.claim_planning(0, 1) == "large"
    assert control.claim_planning(1, 1) == "a.b"
    assert control.claim_planning(0, 2) == "large", "its own of before"
    assert control.unfinished_chunks() == 3
    assert {row.name: (row.state, row.rows_estimate) for row in control.tables()} == {
        "a.b": ("Planning", 10), "c": ("Pending", 7), "large": ("Planning", 99),
    }  # fmt: skip
    control.release(0, 3)
    assert {row.name: row.state for row in control.tables()}["large"] == "Pending"
    control.set_table("c", "Stopped", "why")
    assert next(row for row in control.tables() if row.name == "c").message == "why"
    control.set_table("unknown", "Stopped", "why")
    assert len(control.tables()) == 3


def test_planning_goes_on_where_it_was_left_and_never_otherwise(item_case: ItemCase) -> None:
    control = prepared(item_case).control()
    control.add_tables([TableRow("t", "Pending", 10)])
    assert control.claim_planning(0, 1) == "t"
    first = Chunk("t", 0, None, ("1/3",))
    control.add_chunks("t", [first], last=False)
    control.add_chunks("t", [first], last=False)
    assert control.chunks("t") == [first]
    with pytest.raises(FencedOut, match="another worker plans"):
        control.add_chunks("t", [Chunk("t", 0, None, ("1/4",))], last=False)
    control.add_chunks("t", [Chunk("t", 1, ("1/3",), ("2/3",)), Chunk("t", 2, ("2/3",), None)], last=False)
    control.add_chunks("t", [], last=True)
    assert [row.state for row in control.tables()] == ["Copying"]
    assert control.unfinished_chunks() == 3


def test_chunks_are_claimed_once_and_end(item_case: ItemCase) -> None:
    target = prepared(item_case)
    control = target.control()
    planned(control, "t", 40)
    claimed: list[int] = []

    def work(index: int) -> None:
        mine = item_case.target()
        session = mine.session("snapshot", index)
        attempt = session.take().attempt
        while (chunk := mine.control().claim_chunk(index, attempt)) is not None:
            claimed.append(chunk.number)
            session.commit([], progress=ChunkProgress(chunk, ("x", '{"pk":1}'), 5, done=False))
            session.commit([], progress=ChunkProgress(chunk, ("x", '{"pk":1}'), 7, done=True))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(40))
    assert control.unfinished_chunks() == 0
    assert (control.record().chunks_total, control.record().chunks_done) == (40, 40)
    assert [(row.state, row.rows_copied) for row in control.tables()] == [("Copying", 280)]
    control.settle_tables()
    fresh = item_case.target().control()
    assert [(row.state, row.rows_copied) for row in fresh.tables()] == [("Copied", 280)]
    assert (fresh.record().chunks_total, fresh.record().chunks_done) == (40, 40)


@pytest.mark.parametrize("seed", [1, 2])
def test_figures_are_right_however_little_is_read(item_case: ItemCase, seed: int) -> None:
    """Random claims, progress, ends and returns of six workers over more chunks than are ever read at once."""
    print(f"seed {seed}")
    rng, target = random.Random(seed), prepared(item_case)
    planned(target.control(), "t", 120)
    controls = {index: item_case.target().control() for index in range(6)}
    sessions = {index: item_case.target().session("snapshot", index) for index in range(6)}
    attempts = {index: session.take().attempt for index, session in sessions.items()}
    held: dict[int, Chunk] = {}
    for _ in range(60):
        index = rng.randrange(6)
        if index not in held:
            if (claimed := controls[index].claim_chunk(index, attempts[index])) is not None:
                held[index] = claimed
        elif rng.random() < 0.2:
            attempts[index] = sessions[index].take().attempt
            controls[index].release(index, attempts[index])
            del held[index]
        else:
            chunk, rows = held[index], rng.randrange(50, 100)
            done = rng.random() < 0.7
            sessions[index].commit([], progress=ChunkProgress(chunk, ("x",), max(rows, chunk.rows), done=done))
            held[index] = replace(chunk, rows=max(rows, chunk.rows))
            if done:
                del held[index]
    whole = control_rows(item_case, "chunk#t#")
    ended = [item for item in whole if item["state"]["S"] == "done"]
    copied = sum(int(item["copied"]["N"]) for item in whole)
    for control in (*controls.values(), item_case.target().control()):
        assert (control.record().chunks_total, control.record().chunks_done) == (120, len(ended))
        assert control.unfinished_chunks() == 120 - len(ended)
        assert [row.rows_copied for row in control.tables()] == [copied]
    for index in range(6):
        controls[index].release(index, attempts[index] + 1)
    assert all(item["state"]["S"] in {"free", "done"} for item in control_rows(item_case, "chunk#t#"))


def control_rows(case: ItemCase, prefix: str) -> list[dict[str, Any]]:
    """All rows whose key begins so, as the AWS SDK reads them."""
    pages = case.direct.get_paginator("query").paginate(
        TableName="whimbrel-control", KeyConditionExpression="migration = :m AND begins_with(entry, :p)",
        ExpressionAttributeValues={":m": {"S": case.migration}, ":p": {"S": prefix}},
    )  # fmt: skip
    return [item for page in pages for item in page["Items"]]


def test_stopped_tables_give_no_chunks(item_case: ItemCase) -> None:
    control = prepared(item_case).control()
    planned(control, "t", 2)
    control.set_table("t", "Stopped", "why")
    assert control.claim_chunk(0, 1) is None
    assert control.unfinished_chunks() == 0


def test_a_lost_workers_chunks_come_back_with_their_progress(item_case: ItemCase) -> None:
    target = prepared(item_case)
    control = target.control()
    planned(control, "t", 3)
    session = target.session("snapshot", 5)
    attempt = session.take().attempt
    chunk = control.claim_chunk(5, attempt)
    assert chunk is not None
    session.commit([], progress=ChunkProgress(chunk, ("0/3", "key"), 4, done=False))
    assert control.release_lost(3600.0) == 0
    assert control.release_lost(-60.0) == 1
    with pytest.raises(FencedOut):
        session.commit([], progress=ChunkProgress(chunk, ("0/3", "later"), 9, done=True))
    back = next(found for found in control.chunks("t") if found.number == chunk.number)
    assert (back.resume_after, back.rows) == (("0/3", "key"), 4)
    assert control.release_lost(-60.0) == 0, "it holds nothing any more"


def test_positions_are_kept_and_dropped(item_case: ItemCase) -> None:
    target = prepared(item_case)
    for index in range(3):
        session = target.session("stream", index)
        session.take()
        session.commit([], position=f"p{index}")
    held = target.session("stream", 2)
    held.take()
    control = target.control()
    assert control.positions("stream") == {0: "p0", 1: "p1", 2: "p2"}
    control.drop_positions("stream", 1)
    assert control.positions("stream") == {0: "p0"}
    with pytest.raises(FencedOut):
        held.commit([], position="late")
    assert target.session("stream", 2).take().position == ""
    assert control.positions("snapshot") == {}


def test_a_raised_epoch_reaches_a_row_that_is_only_being_made(item_case: ItemCase) -> None:
    """The worker has named its row in the migration's and is then stopped before it makes it."""
    target = prepared(item_case)
    table = target._control
    table.update("migration", "ADD #workers :name", values={"name": frozenset({"worker#stream#00007"})})
    raise_epoch(table, "switched", "")
    late = table.update(
        "worker#stream#00007", "SET #epoch = :one", where="attribute_not_exists(#epoch) OR #epoch <= :one",
        values={"one": 1},
    )  # fmt: skip
    assert late is None


def half_way(control: DynamoDBControlStore, monkeypatch: pytest.MonkeyPatch, place: str, step: str) -> None:
    """A fence that dies at that place after the update that decides it."""

    def die(name: str) -> None:
        if name == place:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("whimbrel_worker.endpoints.dynamodb.control.epochs.reach", die)
        with pytest.raises(KeyboardInterrupt):
            control.conclude(step, "here", epoch=1, attempt=1)


def told(control: DynamoDBControlStore) -> list[str]:
    return [entry.step for entry in control.record().journal if entry.step != "started"]


@pytest.mark.parametrize("first", ["switched", "refused"])
def test_of_two_verdicts_on_one_epoch_the_first_counts(item_case: ItemCase, first: str) -> None:
    control, other = prepared(item_case).control(), item_case.target().control()
    control.conclude(first, "here", epoch=1, attempt=1)
    other.conclude("refused" if first == "switched" else "switched", "here", epoch=1, attempt=1)
    assert (told(control), control.record().epoch) == ([first], 2)


def test_of_many_that_conclude_at_once_one_counts(item_case: ItemCase) -> None:
    prepared(item_case)

    def conclude(step: str) -> None:
        item_case.target().control().conclude(step, "here", epoch=1, attempt=1)

    threads = [threading.Thread(target=conclude, args=(step,)) for step in ("switched", "refused") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    control = item_case.target().control()
    assert (len(told(control)), control.record().epoch) == (1, 2)


def test_a_verdict_of_an_attempt_that_is_over_does_not_count(item_case: ItemCase) -> None:
    control = prepared(item_case).control()
    control.give_up(2, "it took too long")
    control.conclude("switched", "here", epoch=1, attempt=1)
    assert (told(control), control.record().epoch) == (["timed-out"], 1)


@pytest.mark.parametrize("place", ["fence.raised", "fence.lifted"])
def test_a_switch_that_died_half_way_has_happened_and_is_not_given_up(
    item_case: ItemCase, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    control = prepared(item_case).control()
    half_way(control, monkeypatch, place, "switched")
    with pytest.raises(FencedOut, match="the target is switched"):
        control.give_up(2, "it took too long")
    control.set_plan_attempt(3)
    assert told(control) == ["switched"]


def test_who_finishes_a_raise_late_journals_it_no_second_time(
    item_case: ItemCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands still with what it has read; another one finishes it, and the traffic moves on."""
    control = prepared(item_case).control()
    half_way(control, monkeypatch, "fence.lifted", "switched")
    late = control._control.get("migration")
    assert late is not None
    control.set_plan_attempt(1)
    control.raise_epoch("rolled-back", "there")
    finish(control._control, late)
    assert told(control) == ["switched", "rolled-back"]
