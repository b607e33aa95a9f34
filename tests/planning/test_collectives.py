"""Messages among chips: each counted once, with who takes part, and the least time that they take."""

import pytest
from test_hlo import read

from imgclf.planning import collectives, traffic
from imgclf.planning.chips import CHIPS

V5E = CHIPS["v5e"]


@pytest.mark.parametrize("name", ["v5e_2x2_step", "h100_8_step"])
def test_a_steps_collectives_are_counted_once_each(name):
    module = read(name)
    found = collectives.collectives(module, traffic.all_parts(module))
    # the normalisation's sums, forwards and backwards (the last joined with the head's gradient and the loss); the kernels' gradients
    assert [one.kind for one in found] == ["all-reduce"] * 5
    assert sum(one.bytes for one in found) == 3 * 256 + (2 * 64 + 128 * 1000 + 1) * 4 + 2 * (3 * 3 * 3 * 64 + 3 * 3 * 64 * 128)
    assert [one.dtypes for one in found if "bf16" in one.dtypes] == [("bf16",)]
    chips = 4 if name.startswith("v5e") else 8
    assert {one.groups for one in found} == {(tuple(range(chips)),)}


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}", ((0, 2), (1, 3))),
        ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", ((0, 1, 2, 3),)),
        ("replica_groups={}", ()),
    ],
)
def test_who_takes_part_is_read_in_every_way_that_it_is_written(written, groups):
    assert collectives._groups(f"channel_id=1, {written}, use_global_device_ids=true") == groups


def test_what_crosses_and_how_long_it_takes_at_least():
    gradients = collectives.Collective("all-reduce", 8 * 10**6, ("f32",), ((0, 1, 2, 3),), 1, "")
    assert not collectives.crossing(gradients.groups, [0, 0, 0, 0])
    assert collectives.crossing(gradients.groups, [0, 0, 1, 1])
    assert not collectives.crossing(((0, 1), (2, 3)), [0, 0, 1, 1])
    inside = 2 * 3 / 4 * 8e6 / V5E.link_rate
    assert collectives.least_seconds(gradients, V5E, [0] * 4) == pytest.approx(inside)
    between = 2 * 1 / 2 * 8e6 / (2 * V5E.network_rate)  # two slices, of which two chips each share the network
    assert collectives.least_seconds(gradients, V5E, [0, 0, 1, 1]) == pytest.approx(between)
    gathered = collectives.Collective("all-gather", 8 * 10**6, ("f32",), (), 3, "")
    assert collectives.least_seconds(gathered, V5E, [0] * 4) == pytest.approx(3 * inside / 2)
