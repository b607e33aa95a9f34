"""Names of topologies, and what the descriptions of chips must hold to."""

import pytest

from imgclf.errors import UserError
from imgclf.planning import topologies
from imgclf.planning.chips import CHIPS


@pytest.mark.parametrize(
    ("name", "chips", "hosts", "slices"),
    [
        ("v5e:4x4", 16, 4, 1),
        ("v5e:16x16", 256, 64, 1),
        ("2*v5e:4x4", 32, 8, 2),
        ("V5P:2x2x2", 8, 2, 1),
        ("v6e:1x1", 1, 1, 1),
        ("h100:8", 8, 1, 1),
        ("h100:64", 64, 8, 1),
        ("a100:2", 2, 1, 1),
    ],
)
def test_names(name, chips, hosts, slices):
    topology = topologies.parse(name)
    assert (topology.chips, topology.hosts, topology.slices) == (chips, hosts, slices)
    assert topology.hosts * topology.chips_per_host == chips


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v5e:32x32", "the nearest is v5e:16x16"),
        ("v5e:4x3", "the nearest is v5e:4x4"),
        ("v5p:4x4", "the nearest is v5p:"),
        ("v5:4x4", "did you mean v5"),
        ("h200:8", "did you mean h100"),
        ("h100:12", "use h100:8 or h100:16"),
        ("2*h100:8", "h100:16"),
        ("h100:0", "above 0"),
        ("h100", "write CHIP:SHAPE"),
        ("sixteen", "write CHIP:SHAPE"),
        ("zzz:8", "that is described here; there are "),
    ],
)
def test_names_that_are_not_known_are_refused_with_the_nearest(name, told):
    with pytest.raises(UserError) as refused:
        topologies.parse(name)
    assert told in str(refused.value)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_every_chip_has_its_figures_and_their_source(chip):
    assert chip.source.startswith("https://")
    assert 0 < chip.f32_flops < chip.bf16_flops < 3e15
    assert 8 * 2**30 < chip.usable_bytes <= chip.memory_bytes < 256 * 2**30
    assert chip.network_rate < chip.link_rate < chip.memory_rate
    assert bool(chip.target) == (chip.kind == "gpu") == (not chip.shapes)
    if chip.target:
        assert f"device_memory_size: {chip.memory_bytes}\n" in chip.target
