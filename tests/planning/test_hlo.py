"""The reader of compiled programs, on the texts of a small step compiled for four TPUs v5e and for eight H100s."""

from pathlib import Path

import pytest

from imgclf.planning import hlo

PROGRAMS = Path(__file__).parent / "programs"


def read(name: str) -> hlo.Module:
    return hlo.parse((PROGRAMS / f"{name}.hlo").read_text(encoding="utf-8"))


def array(text: str) -> hlo.Array:
    (found,) = hlo.arrays(text)
    return found


def test_a_program_is_read_whole():
    module = read("v5e_2x2_step")
    assert module.entry.name == "main.11_spmd"
    assert module.donated == 6
    assert module.files == ("step.py",)
    assert module.entry.root.opcode == "tuple"
    assert [module.entry.parameters[place].results[0].sides for place in (0, 1, 2)] == [(3, 3, 3, 64), (3, 3, 64, 128), (128, 1000)]
    for computation in module.computations.values():
        for instruction in computation.instructions:
            assert set(instruction.called) <= set(module.computations)
            assert set(instruction.operands) <= set(computation.by_name) | set(module.computations), instruction.name


def test_an_array_says_where_it_lies_and_how_large_it_is_there():
    on_chip = array("bf16[32,64,64,64]{3,0,2,1:T(8,128)(2,1)S(1)}")
    assert on_chip.on_chip
    assert on_chip.bytes == 32 * 64 * 64 * 64 * 2
    assert on_chip.padded_bytes == 32 * 64 * 64 * 128 * 2  # 64 channels fill half of a tile's 128 places
    images = array("u8[32,64,64,3]{2,1,3,0:T(32,128)(4,1)}")
    assert not images.on_chip
    assert images.padded_bytes == 32 * 3 * 64 * 128
    assert array("f32[64]{0:T(128)}").padded_bytes == 512
    assert array("f32[]{:T(128)S(6)}").on_chip
    assert array("bf16[64,3,3,3]{3,2,1,0}").padded_bytes == 64 * 27 * 2
    assert array("pred[7]{0}").bytes == 7


def test_a_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="no computation"):
        hlo.parse("HloModule nothing\n")
