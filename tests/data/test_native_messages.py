"""The decoders' own messages never reach the standard error stream; everything else does."""

import os
import sys

import cv2
import numpy as np
import pytest
from pictures import folder_config, save
from PIL import Image

from imgclf.data import native_messages
from imgclf.data.table import load_dataset

pytestmark = pytest.mark.usefixtures("cache")


def damage(root):
    """A JPEG with bytes too many before its end, which decodes, and a TIFF with wrong codes, which does not."""
    for label, name in enumerate("ab"):
        for row in range(3):
            save(root / name / f"{row}.jpg", 10 * label + row, (40, 36))
    data = (root / "a/0.jpg").read_bytes()
    (root / "a/0.jpg").write_bytes(data[:-2] + bytes(range(1, 20)) + data[-2:])
    blocks = np.kron(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    Image.fromarray(blocks).save(root / "b/0.tif", compression="tiff_lzw")
    data = bytearray((root / "b/0.tif").read_bytes())
    data[94:96] = b"\xa5\x3c"
    (root / "b/0.tif").write_bytes(data)


def test_verification_and_training_are_silent_about_what_is_in_the_quarantine(tmp_path, capfd):
    damage(tmp_path)
    cv2.imdecode(np.frombuffer((tmp_path / "a/0.jpg").read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert "Corrupt JPEG data" in capfd.readouterr().err  # so it is, without care
    dataset = load_dataset(folder_config(tmp_path))
    shown = [dataset.reader[row] for row in range(len(dataset.table))]
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""
    assert dataset.quarantine["id"].tolist() == ["b/0.tif"]
    assert dataset.quarantine["detail"].iloc[0]
    plain = cv2.imdecode(np.frombuffer((tmp_path / "a/0.jpg").read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(shown[0], plain)  # by Pillow, with the same pixels
    capfd.readouterr()
    again = load_dataset(folder_config(tmp_path))  # from the cache, which remembers
    np.testing.assert_array_equal(again.reader[0], plain)
    assert capfd.readouterr().err == ""


def test_other_lines_follow_and_the_stream_is_as_it_was(capfd):
    before = os.fstat(2).st_ino
    with native_messages.held_back():
        os.write(2, b"Corrupt JPEG data: premature end of data segment\n")
        os.write(2, b"a warning of another library\n")
        os.write(2, b"tempfile.tif: Using code not yet in table.\n")
        assert native_messages.written() > 0
        with native_messages.held_back():
            print("said by Python", file=sys.stderr, flush=True)
    assert os.fstat(2).st_ino == before
    assert native_messages.written() == 0
    err = capfd.readouterr().err
    assert "a warning of another library\n" in err
    assert "JPEG" not in err
    assert "tempfile" not in err
