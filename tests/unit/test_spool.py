"""The log of our own on a volume: what was kept comes back whole, in order, or not at all: crashes and damage."""

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_worker.engine.shard_ports import BEGINNING, Holder, ItemChange, Page, ShardRef
from whimbrel_worker.engine.spool.frames import HEAD_BYTES, frames
from whimbrel_worker.engine.spool.pages import packed, unpacked
from whimbrel_worker.engine.spool.spool import Spool, open_spool
from whimbrel_worker.errors import ConfigurationError, FencedOut, SourceLogLost, WorkerError

REF = ShardRef("src1", "arn:aws:dynamodb:us-east-1:0:table/src1/stream/1", "shardId-1")
ME, OTHER = Holder(0, 1), Holder(1, 1)
FIRST = 2**70


def change(number: int, *, after: bool = True, size: int = 20) -> ItemChange:
    key = (f'{{"S":"k{number % 7}"}}'.encode(), b'{"N":"1"}')
    item = b'{"pk":{"S":"' + bytes([97 + number % 26]) * size + b'"}}'
    return ItemChange(str(FIRST + number), key, (*key, item) if after else None, 1000.5 + number, number % 5 == 0)


def some_pages(count: int, *, rng: random.Random | None = None, ended: bool = False) -> list[Page]:
    """Pages of one to four changes; numbers go on from page to page."""
    rng, number, made = rng or random.Random(3), 0, []
    for _ in range(count):
        several = [change(number + index, after=rng.random() < 0.8) for index in range(rng.randint(1, 4))]
        number += len(several)
        made.append(Page(several, 2000.0 + number))
    if ended:
        made.append(Page((), 9000.0, ended=True))
    return made


def keep(spool: Spool, pages: Sequence[Page], *, holder: Holder = ME, close: bool = True) -> None:
    writer = spool.writer(REF, BEGINNING, holder)
    for page in pages:
        writer.append(page)
    if close:
        writer.close()


def kept(spool: Spool, position: str = BEGINNING) -> list[ItemChange]:
    return [each for page in spool.pages_after(REF, position) for each in page.changes]


def all_of(pages: Sequence[Page]) -> list[ItemChange]:
    return [each for page in pages for each in page.changes]


def segments(spool: Spool) -> list[Path]:
    return sorted(spool.folder_of(REF).glob("*.seg"))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", "changes", segment_bytes=400)


CELLS = st.lists(st.binary(max_size=40), min_size=1, max_size=2)
CHANGES = st.builds(
    lambda sequence, key, item, at, by_ttl: ItemChange(
        str(sequence), tuple(key), None if item is None else (*key, item), at, by_ttl
    ),
    st.integers(0, 2**100), CELLS, st.none() | st.binary(max_size=300), st.floats(0, 2e9), st.booleans(),
)  # fmt: skip


@given(st.lists(CHANGES, max_size=20), st.floats(0, 2e9), st.booleans())
def test_a_page_comes_back_as_it_was(changes: list[ItemChange], asked_at: float, ended: bool) -> None:
    page = Page(changes, asked_at, ended)
    assert unpacked(packed(page)) == page


def test_a_change_that_is_no_item_is_refused() -> None:
    with pytest.raises(WorkerError, match="cannot be kept"):
        packed(Page([ItemChange("1", (1,), None, 0.0)], 0.0))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), lives=st.integers(1, 4), size=st.sampled_from([1, 300, 1 << 20]))
def test_what_several_lives_kept_comes_back_from_any_position(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lives: int, size: int
) -> None:
    rng = random.Random(seed)
    spool = Spool(tmp_path_factory.mktemp("s"), segment_bytes=size)
    pages = some_pages(rng.randint(lives, 20), rng=rng, ended=rng.random() < 0.5)
    cuts = sorted(rng.sample(range(len(pages)), min(lives, len(pages))))
    for start, stop in zip([0, *cuts], [*cuts, len(pages)], strict=True):
        keep(spool, pages[start:stop], close=rng.random() < 0.5)
    changes = all_of(pages)
    assert kept(spool) == changes
    assert spool.collected_to(REF) == changes[-1].sequence
    assert spool.ended(REF) is pages[-1].ended
    for known in rng.sample(changes, min(4, len(changes))):
        after = [each for each in changes if int(each.sequence) > int(known.sequence)]
        assert kept(spool, known.sequence) == after
        assert kept(spool, f"@{known.sequence}") == [known, *after]


def test_small_pages_are_joined_and_the_end_is_told_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    pages = some_pages(1500, ended=True)
    keep(spool, pages)
    found = list(spool.pages_after(REF, BEGINNING))
    assert all_of(found) == all_of(pages)
    assert [page.ended for page in found] == [False] * (len(found) - 1) + [True]
    assert len(found) == -(-len(all_of(pages)) // 1000)


def test_a_large_page_is_not_joined_with_many(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    keep(spool, [Page([change(number, size=300_000)], 1.0) for number in range(12)])
    assert max(len(page.changes) for page in spool.pages_after(REF, BEGINNING)) <= 5


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def test_a_crash_at_any_byte_of_the_last_frame_loses_that_frame_alone(spool: Spool, tmp_path: Path) -> None:
    pages = some_pages(6)
    keep(spool, pages, close=False)
    last = segments(spool)[-1]
    ends = [each.end for each in frames(last)]
    before, size = ends[-2], ends[-1]
    assert before > HEAD_BYTES
    for at in range(before, size):
        copy = Spool(tmp_path / f"crash{at}", segment_bytes=400)
        shutil.copytree(spool.folder, copy.folder)
        cut(copy.folder_of(REF) / last.name, at)
        assert kept(copy) == all_of(pages[:-1])
        keep(copy, pages[-1:])
        assert kept(copy) == all_of(pages)
        shutil.rmtree(copy.folder)


def test_a_crash_within_a_segments_first_frame_goes_on_behind_the_one_before(spool: Spool, tmp_path: Path) -> None:
    pages = some_pages(8)
    keep(spool, pages, close=False)
    last = segments(spool)[-1]
    first_end = next(frames(last)).end
    ends: list[int] = []
    whole = len([each for path in segments(spool)[:-1] for each in frames(path) if each.kind == 2])
    for at in (0, 1, HEAD_BYTES, first_end - 1):
        copy = Spool(tmp_path / f"crash{at}", segment_bytes=400)
        shutil.copytree(spool.folder, copy.folder)
        cut(copy.folder_of(REF) / last.name, at)
        assert kept(copy) == all_of(pages[:whole])
        keep(copy, pages[whole:])
        assert kept(copy) == all_of(pages)
        ends.append(at)
    assert len(ends) == 4


def damages(path: Path) -> Iterator[int]:
    """Change one byte after the other, each for a moment."""
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        yield at
    path.write_bytes(whole)


def test_a_damaged_byte_anywhere_is_found(spool: Spool) -> None:
    """All but the mark of the end itself, which holds nothing: without it the frame before is whole all the same."""
    pages = some_pages(5)
    keep(spool, pages)
    paths = segments(spool)
    assert len(paths) > 1
    for path in paths:
        close = [each.end for each in frames(path)][-2] if path == paths[-1] else path.stat().st_size
        for at in damages(path):
            if at >= close:
                assert kept(spool) == all_of(pages)
                continue
            with pytest.raises(SourceLogLost) as found:
                kept(spool)
            assert path.name in found.value.where
            assert "byte" in found.value.where
    assert kept(spool) == all_of(pages)


def test_damage_below_a_seal_is_found_in_the_last_frame_too(spool: Spool) -> None:
    keep(spool, some_pages(3), close=False)
    first = segments(spool)[-1]
    spool.writer(REF, BEGINNING, OTHER)
    start = [each.end for each in frames(first)][-2]
    for at in damages(first):
        if at >= start:
            with pytest.raises(SourceLogLost):
                kept(spool)


def test_a_damaged_seal_is_found(spool: Spool) -> None:
    keep(spool, some_pages(3))
    for at in damages(spool.folder_of(REF) / "00000001.seal"):
        if at < 8 or at > 8:
            with pytest.raises(SourceLogLost):
                kept(spool)


def test_a_file_that_was_cut_below_its_seal_is_found(spool: Spool) -> None:
    keep(spool, some_pages(3))
    spool.writer(REF, BEGINNING, OTHER)
    cut(segments(spool)[-1], segments(spool)[-1].stat().st_size - 1)
    with pytest.raises(SourceLogLost, match="damaged"):
        kept(spool)


def test_a_former_writer_is_fenced_out_and_what_it_adds_is_never_read(spool: Spool) -> None:
    pages = some_pages(6)
    zombie = spool.writer(REF, BEGINNING, ME)
    for page in pages[:3]:
        zombie.append(page)
    successor = spool.writer(REF, BEGINNING, OTHER)
    assert successor.position == all_of(pages[:3])[-1].sequence
    with pytest.raises(FencedOut, match="another worker"):
        zombie.append(Page([change(3000)], 1.0))
    zombie.close()
    for page in pages[3:]:
        successor.append(page)
    successor.close()
    assert kept(spool) == all_of(pages)


def test_a_writer_that_was_overtaken_before_its_first_page_is_fenced_out(spool: Spool) -> None:
    first = spool.writer(REF, BEGINNING, ME)
    keep(spool, some_pages(2), holder=OTHER)
    with pytest.raises(FencedOut):
        first.append(Page([change(5000)], 1.0))
    assert kept(spool) == all_of(some_pages(2))


def test_the_end_that_a_fenced_writer_saw_does_not_count(spool: Spool) -> None:
    zombie = spool.writer(REF, BEGINNING, ME)
    spool.writer(REF, BEGINNING, OTHER)
    with pytest.raises(FencedOut):
        zombie.append(Page((), 1.0, ended=True))
    assert not spool.ended(REF)


def test_what_begins_later_than_is_needed_is_a_gap(spool: Spool) -> None:
    spool.writer(REF, str(FIRST), ME).append(Page([change(1)], 1.0))
    assert kept(spool, str(FIRST)) == [change(1)]
    with pytest.raises(SourceLogLost, match="begin too late"):
        kept(spool, BEGINNING)


def test_dropping_leaves_nothing_and_other_shards_alone(spool: Spool) -> None:
    other = ShardRef("src1", REF.stream, "shardId-2")
    keep(spool, some_pages(2, ended=True))
    spool.writer(other, BEGINNING, ME).append(Page([change(1)], 1.0))
    spool.drop(REF)
    spool.drop(REF)
    assert not spool.folder_of(REF).exists()
    assert spool.collected_to(REF) == BEGINNING
    assert spool.collected_to(other) == change(1).sequence


def test_a_migration_made_anew_finds_nothing_of_the_former_one(tmp_path: Path) -> None:
    keep(open_spool(tmp_path, "changes", "shop/items", "2026-11-21T19:00:00.000Z"), some_pages(2))
    assert kept(open_spool(tmp_path, "changes", "shop/items", "2026-11-22T19:00:00.000Z")) == []
    assert kept(open_spool(tmp_path, "changes", "shop/items", "2026-11-21T19:00:00.000Z")) != []


def test_a_volume_that_is_not_mounted_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="changes") as found:
        open_spool(tmp_path / "absent", "changes", "shop/items", "p")
    assert "mounted" in found.value.todo


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_volume_stops_with_its_name_and_figures(tmp_path: Path) -> None:
    spool, pages = Spool(tmp_path / "spool", "changes"), some_pages(3)
    writer = spool.writer(REF, BEGINNING, ME)
    for page in pages[:2]:
        writer.append(page)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._handle)
    os.close(full)
    with pytest.raises(ConfigurationError) as found:
        writer.append(pages[2])
    assert found.value.what == "the spool's volume is full: changes"
    assert "MiB" in found.value.why
    assert "kubectl patch pvc changes" in found.value.todo
    with pytest.raises(WorkerError):
        writer.append(pages[2])
    writer.close()
    keep(spool, pages[2:])
    assert kept(spool) == all_of(pages)
