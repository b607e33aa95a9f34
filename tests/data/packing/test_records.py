"""ArrayRecord shards, read by the library and by ranges."""

import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgclf.data.images import ImageError
from imgclf.data.packing import records

_BLOCK = 65_536


@settings(max_examples=25, deadline=None)
@example([_BLOCK - 64 - 40 - 3 - 2, 1])  # the second chunk begins a block
@example([_BLOCK - 64 - 40 - 3 + 9, 0, 3 * _BLOCK])  # a chunk's header lies across the head of a block
@example([36_000_000])  # of more blocks than one call of the system reads apart
@given(st.lists(st.one_of(st.integers(0, 300), st.integers(_BLOCK - 200, _BLOCK + 200), st.integers(0, 300_000)), min_size=1, max_size=12))
def test_a_record_is_found_by_number_and_by_range(tmp_path_factory, sizes):
    path = tmp_path_factory.mktemp("shard") / "shard"
    written = [bytes([size % 251]) * size for size in sizes]
    assert records.write(path, written) == len(written)
    data, shard = path.read_bytes(), records.Shard(str(path), len(written))
    spans = records.spans(data, len(written))
    for _ in range(2):  # by the library, then without it
        assert [bytes(shard.read(number, span)) for number, span in enumerate(spans)] == written
    assert [records.unwrap(data[offset : offset + length], offset) for offset, length in spans] == written


def test_damage_is_told_and_stays_where_it_is(tmp_path):
    path = tmp_path / "shard"
    records.write(path, [os.urandom(1000) for _ in range(3)])
    data = bytearray(path.read_bytes())
    spans = records.spans(bytes(data), 3)
    offset, length = spans[1]
    data[offset + 500] ^= 1
    path.write_bytes(data)
    shard = records.Shard(str(path), 3)
    with pytest.raises(ImageError, match="hash mismatch"):
        shard.read(1, spans[1])
    assert len(shard.read(0, spans[0])) == len(shard.read(2, spans[2])) == 1000
    with pytest.raises(ImageError, match="no whole record"):
        records.unwrap(bytes(data[offset : offset + length // 2]), offset)
    path.write_bytes(data[:2000])
    with pytest.raises(ImageError, match="gives 0 of its 3 records"):
        records.Shard(str(path), 3)


def test_a_disk_that_is_full_is_an_error_of_the_system():
    with pytest.raises(OSError, match="No space left"):
        records.write("/dev/full", [b"x" * 100_000])
