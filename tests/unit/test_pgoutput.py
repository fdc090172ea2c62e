"""Every message comes back as it was written; one that is cut, lengthened or unknown is refused."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.pgoutput_encoder import encode
from whimbrel_worker.endpoints.polardb.log.messages import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Emitted,
    Insert,
    Message,
    OldRow,
    Origin,
    Relation,
    RelationColumn,
    ReplicaIdentity,
    Truncate,
    Type,
    Update,
)
from whimbrel_worker.endpoints.polardb.log.pgoutput import decode
from whimbrel_worker.errors import Incompatible

LSNS = st.integers(0, 2**64 - 1)
OIDS = st.integers(0, 2**32 - 1)
MOMENTS = st.integers(0, 2**61)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
TEXTS = st.none() | st.binary(max_size=60)
ROWS = st.lists(TEXTS, max_size=8).map(tuple)
CHANGED_ROWS = st.lists(TEXTS | st.just(UNCHANGED), max_size=8).map(tuple)
OLD_ROWS = st.builds(OldRow, st.booleans(), ROWS)
COLUMNS = st.builds(RelationColumn, NAMES, st.booleans(), OIDS, st.integers(-(2**31), 2**31 - 1))
KINDS: dict[str, st.SearchStrategy[Message]] = {
    "begin": st.builds(Begin, LSNS, MOMENTS, OIDS),
    "commit": st.builds(Commit, LSNS, LSNS, MOMENTS),
    "origin": st.builds(Origin, LSNS, NAMES),
    "relation": st.builds(
        Relation, OIDS, NAMES, NAMES, st.sampled_from(ReplicaIdentity), st.lists(COLUMNS, max_size=6).map(tuple)
    ),
    "type": st.builds(Type, OIDS, NAMES, NAMES),
    "insert": st.builds(Insert, OIDS, ROWS),
    "update": st.builds(Update, OIDS, st.none() | OLD_ROWS, CHANGED_ROWS),
    "delete": st.builds(Delete, OIDS, OLD_ROWS),
    "truncate": st.builds(Truncate, st.lists(OIDS, max_size=5).map(tuple), st.booleans(), st.booleans()),
    "emitted": st.builds(Emitted, st.booleans(), LSNS, NAMES, st.binary(max_size=60)),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
few = settings(max_examples=50)


@each_kind
@few
@given(data=st.data())
def test_a_message_comes_back_as_it_was_written(kind: str, data: st.DataObject) -> None:
    message = data.draw(KINDS[kind])
    assert decode(encode(message)) == message


@each_kind
@few
@given(data=st.data())
def test_a_message_that_is_cut_short_anywhere_is_refused(kind: str, data: st.DataObject) -> None:
    whole = encode(data.draw(KINDS[kind]))
    for length in range(len(whole)):
        with pytest.raises(Incompatible):
            decode(whole[:length])


@each_kind
@few
@given(data=st.data())
def test_bytes_after_a_message_are_refused(kind: str, data: st.DataObject) -> None:
    rest = data.draw(st.binary(min_size=1, max_size=8))
    with pytest.raises(Incompatible, match="follow after its end"):
        decode(encode(data.draw(KINDS[kind])) + rest)


@each_kind
@few
@given(data=st.data())
def test_one_changed_byte_is_refused_or_is_another_message_exactly(kind: str, data: st.DataObject) -> None:
    changed = bytearray(encode(data.draw(KINDS[kind])))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = decode(bytes(changed))
    except Incompatible:
        return
    assert encode(message) == bytes(changed)


@pytest.mark.parametrize("mark", [b"K", b"O"])
def test_an_old_row_says_whether_it_is_whole(mark: bytes) -> None:
    values = b"\0\2t\0\0\0\1an"
    old = OldRow(mark == b"O", (b"a", None))
    assert decode(b"U\0\0\0\1" + mark + values + b"N" + values) == Update(1, old, (b"a", None))
    assert decode(b"D\0\0\0\1" + mark + values) == Delete(1, old)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "ends after 0 bytes"),
        (b"S\0\0\0\1\1", "not part of protocol version 1"),
        (b"I\0\0\0\1N\0\1b\0\0\0\1x", "a value of kind b'b'"),
        (b"I\0\0\0\1N\0\1u", "said to be unchanged"),
        (b"I\0\0\0\1K\0\0", "a part b'K'"),
        (b"U\0\0\0\1X\0\0", "a part b'X' of an update"),
        (b"D\0\0\0\1N\0\0", "a part b'N' of a delete"),
        (b"I\0\0\0\1N\xff\xff", "a count of -1"),
        (b"I\0\0\0\1N\0\1t\xff\xff\xff\xff", "-1 more are due"),
        (b"C\1" + bytes(24), "the flags 0x1"),
        (b"T" + struct.pack("!iB", 2**31 - 1, 0), "more are due"),
        (b"R\0\0\0\1p\0t\0z\0\0", "a replica identity b'z'"),
        (b"R\0\0\0\1\xff\0t\0d\0\0", "not UTF-8"),
    ],
)
def test_what_is_not_understood_is_named(payload: bytes, why: str) -> None:
    with pytest.raises(Incompatible) as raised:
        decode(payload)
    assert why in raised.value.why


def test_the_catalogue_has_the_empty_name() -> None:
    relation = decode(b"R\0\0\0\1\0pg_x\0d\0\0")
    assert isinstance(relation, Relation)
    assert relation.schema == "pg_catalog"


def test_a_commit_tells_its_time_in_microseconds_since_1970() -> None:
    message = decode(struct.pack("!cBQQq", b"C", 0, 1, 2, 1_500_000))
    assert message == Commit(1, 2, 946_684_801_500_000)
