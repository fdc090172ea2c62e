"""Faults of the change stream, injected for real; each ends by an independent comparison (rows of the fault matrix)."""

import os
import random
import signal
import threading

import pytest

from support.churn import CHURNED, churn, churning, make_churned
from support.streams import Lab, WorkerProcess
from support.unique import follow_with_indexes
from whimbrel_testbed.mysql import mysql_server

SEEDS = [1, 2, 3]


def following(worker: WorkerProcess) -> WorkerProcess:
    worker.wait_for(lambda: worker.stream().lag_seconds is not None, "it follows")
    return worker


@pytest.mark.parametrize("seed", SEEDS)
def test_row_2_a_worker_killed_inside_a_transaction(stream_to_postgres: Lab, seed: int) -> None:
    """Each life is killed at its n-th commit; the next one resumes, under indexes that forbid any wrong order."""
    lab, rng = stream_to_postgres, random.Random(seed)
    print(f"seed {seed}")
    make_churned(lab, 40)
    lab.prepare(start=False)
    assert follow_with_indexes(lab, ["users"]).terminate() == 5
    for place in rng.choices(["before_commit", "after_commit"], k=3):
        failpoint = f"stream.{place}:{rng.randrange(6, 30)}"
        churn(lab, rng, 40)
        worker = lab.stream(flush="20ms", checkpoint="100ms", environment={"WHIMBREL_FAILPOINT": failpoint})
        churn(lab, rng, 60)
        assert worker.ended() == -signal.SIGKILL, worker.log()
    lab.drain(lab.stream())
    assert lab.differences(CHURNED) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_row_3_commit_done_and_reply_lost(stream_to_dsql: Lab, moves_dsql, seed: int) -> None:  # type: ignore[no-untyped-def]
    lab, rng = stream_to_dsql, random.Random(seed)
    print(f"seed {seed}")
    make_churned(lab)
    lab.prepare()
    worker = following(lab.stream(flush="20ms"))
    moves_dsql.control.set(drop_after_commit=0.2, drop_before_commit=0.1, seed=seed)
    with churning(lab, rng):
        worker.wait_for(lambda: worker.counters().connections > 5, "connections were cut")
    moves_dsql.control.set(drop_after_commit=0.0, drop_before_commit=0.0)
    lab.drain(worker)
    worker.retire()
    assert lab.differences(CHURNED) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_row_4_a_zombie_is_fenced_out(lab: Lab, seed: int) -> None:
    rng = random.Random(seed)
    lanes = (4, rng.choice([4, 2]))
    print(f"seed {seed}, lanes {lanes}")
    make_churned(lab, 20)
    lab.prepare()
    lab.execute("UPDATE words SET n = 1", "UPDATE users SET n = 1", "UPDATE pairs SET n = 1")
    zombie = following(lab.stream(lanes=lanes[0], flush="300ms"))
    lab.drain(zombie)
    churn(lab, rng, 10)
    os.kill(zombie.process.pid, signal.SIGSTOP)
    churn(lab, rng, 30)
    successor = lab.stream(lanes=lanes[1])
    lab.drain(successor)
    churn(lab, rng, 10)
    lab.drain(successor)
    before = lab.positions()
    assert lab.differences(CHURNED) == []
    os.kill(zombie.process.pid, signal.SIGCONT)
    churn(lab, rng, 5)
    assert zombie.ended() == 4, zombie.log()
    lab.drain(successor)
    assert successor.process.poll() is None, "the successor was not disturbed"
    assert before.keys() == lab.positions().keys()
    assert lab.differences(CHURNED) == []


def test_row_13_a_purged_log_stops_the_stream_by_name(tmp_path, postgres, postgres_database) -> None:  # type: ignore[no-untyped-def]
    from support.streams import postgres_lab

    with mysql_server() as mysql:
        with mysql.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE purged")
        with postgres_lab(tmp_path, mysql, "purged", postgres, postgres_database) as lab:
            lab.execute("CREATE TABLE t (id INT PRIMARY KEY)")
            lab.prepare()
            worker = following(lab.stream())
            lab.execute("INSERT INTO t VALUES (1)")
            lab.drain(worker)
            assert worker.terminate() == 5
            for number in (2, 3):
                lab.execute(f"INSERT INTO t VALUES ({number})", "FLUSH BINARY LOGS")
            newest = lab.query("SHOW BINARY LOGS")[-1][0]
            lab.execute(f"PURGE BINARY LOGS TO '{newest}'")
            held = lab.positions()
            again = lab.stream()
            assert again.ended() == 3, again.log()
            report = again.report()
            assert report is not None
            assert report.last_error is not None
            assert report.last_error.category == "SourceLogLost"
            assert "no longer has the changes" in report.last_error.what
            assert "binlog_expire_logs_seconds" in report.last_error.todo
            assert lab.look("SELECT id FROM purged.t") == [(1,)], "nothing was skipped"
            assert lab.positions() == held


@pytest.mark.parametrize("seed", SEEDS)
def test_row_20_keys_that_move_between_chunks_while_they_are_copied(lab: Lab, seed: int) -> None:
    print(f"seed {seed}")
    make_churned(lab, 2000)
    lab.prepare(start=False)
    stop = threading.Event()
    traffic = [
        threading.Thread(target=churn, args=(lab, random.Random(seed * 10 + n), 100_000, 2000, stop)) for n in range(2)
    ]
    copiers = [lab.snapshot(index=index, workers=2, chunk_rows=100) for index in range(2)]
    for thread in traffic:
        thread.start()
    try:
        assert [copier.ended() for copier in copiers] == [0, 0], "".join(copier.log() for copier in copiers)
        worker = following(lab.stream())
    finally:
        stop.set()
        for thread in traffic:
            thread.join()
    lab.drain(worker)
    assert lab.differences(CHURNED) == []
    assert lab.look(f'SELECT count(*) FROM "{lab.database}".words')[0][0] > 500


@pytest.mark.parametrize("seed", SEEDS)
def test_row_21_conflicts_lost_connections_and_short_sessions(stream_to_dsql: Lab, moves_dsql, seed: int) -> None:  # type: ignore[no-untyped-def]
    lab, rng = stream_to_dsql, random.Random(seed)
    print(f"seed {seed}")
    make_churned(lab)
    lab.prepare()
    worker = following(lab.stream(flush="20ms"))
    moves_dsql.control.set(conflict_rate=0.2, max_session_seconds=3.0, drop_before_commit=0.05, seed=seed)
    for step in range(25):
        churn(lab, rng, 15)
        if step % 8 == 7:
            moves_dsql.control.cut_sessions()
    with churning(lab, rng):
        worker.wait_for(lambda: worker.counters().connections > 10, "sessions ended")
        worker.wait_for(lambda: worker.counters().conflicts > 0, "commits met a conflict")
    lab.drain(worker)
    worker.retire()
    assert lab.differences(CHURNED) == []
