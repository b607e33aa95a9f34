"""Features that processes compute together: each a share of the images, over all its devices, and all get all."""

import json
import socket

import extract_together
import numpy as np
import pytest
import warm_start

from imgclf.probes import shared_features


@pytest.mark.parametrize("size", [1, 3, 5, 20])
def test_blocks_are_the_batches_in_a_row(size):
    rows = np.arange(14 * 2 * 3, dtype=np.float32).reshape(14, 2, 3)  # images, views, channels

    def batches():
        for start in range(0, 14, 4):
            yield [rows[start : start + 4, view] for view in range(2)]

    blocks = list(shared_features._blocks(batches(), size))
    np.testing.assert_array_equal(np.concatenate(blocks), rows)
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("caches", ["shared", "of each host"])
def test_two_processes_compute_half_the_images_each(color_folder, tmp_path, caches):
    alone = warm_start.start(extract_together.main, color_folder, tmp_path / "alone", tmp_path / "alone.json", 1)
    code, told = warm_start.finish(*alone)
    assert code == 0, told
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    cache = [tmp_path / ("cache" if caches == "shared" else f"cache{k}") for k in range(2)]
    outs = [tmp_path / f"out{k}.json" for k in range(2)]
    started = [warm_start.start(extract_together.main, color_folder, cache[k], outs[k], 2, coordinator, 2, k) for k in range(2)]
    ended = [warm_start.finish(*one) for one in started]
    assert [code for code, _ in ended] == [0, 0], ended
    expected = np.load(tmp_path / "alone.npy")
    for out in outs:
        np.testing.assert_allclose(np.load(out.with_suffix(".npy")), expected, atol=1e-5)
    shown = [json.loads(path.read_text()) for path in (tmp_path / "alone.json", *outs)]
    assert shown[0] == [19, len(expected) - 19]
    assert np.add(*shown[1:]).tolist() == shown[0]
    assert max(abs(np.subtract(*shown[1:]))) <= 1
