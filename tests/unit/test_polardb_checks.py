"""What a server lacks for reading its log is found from what it says of itself."""

from dataclasses import replace
from typing import Any

import pytest

from whimbrel_worker.endpoints.polardb.slot.checks import ServerFacts, check_server

FIT = ServerFacts(
    version=160014, standby=False, wal_level="logical", may_replicate=True, superuser=False, may_create=True,
    owner="owner", slots_free=1, senders_free=1, keep_bytes=1 << 30,
)  # fmt: skip


def test_a_fit_server_has_no_problem() -> None:
    assert list(check_server(FIT, "there")) == []


@pytest.mark.parametrize(
    ("change", "said", "fatal"),
    [
        ({"version": 130011}, "version 13", True),
        ({"standby": True}, "the primary endpoint", True),
        ({"wal_level": "replica"}, "wal_level is replica", True),
        ({"may_replicate": False}, "ALTER ROLE … REPLICATION", True),
        ({"slots_free": 0}, "max_replication_slots", True),
        ({"senders_free": -1}, "max_wal_senders", True),
        ({"keep_bytes": -1}, "max_slot_wal_keep_size is -1", False),
    ],
)
def test_each_lack_is_said_with_its_remedy(change: dict[str, Any], said: str, fatal: bool) -> None:
    (problem,) = check_server(replace(FIT, **change), "there")
    assert said in problem.why + problem.todo
    assert problem.todo
    assert problem.fatal is fatal


def test_a_slot_that_is_there_needs_no_room() -> None:
    assert list(check_server(replace(FIT, slots_free=0), "there", slot_there=True)) == []
