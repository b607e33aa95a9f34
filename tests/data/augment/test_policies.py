"""Policies: torchvision's spaces, turns as Pillow makes them, one resample, mixtures, and errors."""

import collections
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from imgclf.config import default_config
from imgclf.data import augment
from imgclf.data.augment import POLICY, Draw, policies, view_rng
from imgclf.data.augment.pixels import Operation
from imgclf.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "torchvision_policies.json").read_text())


def config(**fields) -> SimpleNamespace:
    return SimpleNamespace(**(default_config().augment.to_dict() | fields))


def smooth(h: int, w: int) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return np.stack([255 * y / h, 255 * x / w, 127 + 100 * np.sin(x / 9) * np.cos(y / 7)], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("golden", "policy"),
    [
        ("rand_augment", policies.RandAugment()),
        ("trivial_augment", policies.TrivialAugment()),
        ("aug_mix", policies.AugMix()),
        ("aug_mix, partial", policies.AugMix(all_operations=False)),
    ],
)
def test_spaces_are_torchvisions(golden, policy):
    """Operations, magnitudes bin by bin, and which have a sign."""
    height, width = GOLDEN["size"]
    ours = {name.replace("_", "").replace("shift", "translate"): name for name in policy.space}
    assert set(ours) == {name.lower() for name in GOLDEN[golden]}
    for theirs, (magnitudes, is_signed) in GOLDEN[golden].items():
        name = ours[theirs.lower()]
        found = [policies.operation(policy, name, bin_).amount for bin_ in range(policy.bins)]
        if name in ("brightness", "color", "contrast", "sharpness"):
            found = [factor - 1 for factor in found]
        scale = {"translate_x": width, "translate_y": height, "solarize": 1 / 255}.get(name, 1)
        np.testing.assert_allclose(np.array(found) * scale, magnitudes or np.zeros(policy.bins), atol=2e-5, err_msg=name)
        flipped = policies.operation(policy, name, policy.bins - 1, sign=0.5).amount
        assert (flipped != found[-1]) == is_signed or name in ("brightness", "color", "contrast", "sharpness")
        if name in ("brightness", "color", "contrast", "sharpness"):
            assert flipped == pytest.approx(1 - found[-1])


def chains(policy: str, args: str = "", count: int = 3000) -> list[tuple[policies.Chain, ...]]:
    fields = config(policy=policy, policy_args=args)
    return [policies.draw(view_rng(0, str(n), 0, POLICY), fields) for n in range(count)]


def test_rand_augment_draws_all_operations_alike_in_any_order():
    counts, lengths = collections.Counter(), set()
    for (chain,) in chains("rand_augment"):
        operations = (*chain.turns, *chain.pixels)
        counts.update(operation.name for operation in operations)
        lengths.add(len(operations))
        assert chain.weight == 1
    assert lengths == {0, 1, 2}  # identity is nothing to do
    assert len(counts) == 13
    assert all(abs(count - 6000 / 14) < 100 for count in counts.values())
    turned = [turn.amount for (chain,) in chains("rand_augment", "magnitude=30") for turn in chain.turns if turn.name == "rotate"]
    assert set(turned) == {30.0, -30.0}
    assert abs(np.mean(turned)) < 5


def test_trivial_augment_draws_one_operation_of_any_magnitude():
    turned = []
    for (chain,) in chains("trivial_augment"):
        assert len(chain.turns) + len(chain.pixels) <= 1
        turned += [turn.amount for turn in chain.turns if turn.name == "shear_x"]
    assert min(turned) == pytest.approx(-0.99)
    assert max(turned) == pytest.approx(0.99)
    assert len({round(abs(amount), 6) for amount in turned}) == 31


def test_aug_mix_draws_weights_depths_and_weak_magnitudes():
    weights, depths = [], collections.Counter()
    for drawn in chains("aug_mix"):
        assert len(drawn) == 4
        assert (drawn[0].turns, drawn[0].pixels) == ((), ())
        assert sum(chain.weight for chain in drawn) == pytest.approx(1)
        weights.append([chain.weight for chain in drawn])
        for chain in drawn[1:]:
            depths[len(chain.turns) + len(chain.pixels)] += 1
            assert all(abs(turn.amount) <= 30 * 2 / 9 + 1e-9 for turn in chain.turns if turn.name == "rotate")
    np.testing.assert_allclose(np.mean(weights, 0), [1 / 2, 1 / 6, 1 / 6, 1 / 6], atol=0.02)
    assert set(depths) == {1, 2, 3}
    assert all(abs(count - 3000) < 200 for count in depths.values())
    partial = {
        operation.name for drawn in chains("aug_mix", "all_operations=False, depth=2", 300) for chain in drawn for operation in chain.pixels
    }
    assert partial == {"posterize", "solarize", "autocontrast", "equalize"}


@pytest.mark.parametrize(
    ("name", "amount"), [("shear_x", 0.3), ("shear_y", -0.2), ("rotate", 25.0), ("shift_x", 7.9), ("translate_y", -0.2)]
)
def test_a_turn_is_pillows(name, amount):
    """About the centre; Pillow counts corners, so that its pixel 0 has its centre at 0.5."""
    image = smooth(60, 80)
    drawn = Draw(policy=(policies.Chain(1.0, (Operation(name, amount),)),))
    ours = augment.render(image, drawn, (60, 80), fill="constant")
    source = Image.fromarray(image)
    affine = {
        "shear_x": (1, amount, -amount * 30, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, -amount * 40),
        "shift_x": (1, 0, -int(amount), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, -int(amount * 60)),
    }
    if name == "rotate":
        pillow = source.rotate(amount, Image.Resampling.BILINEAR)
    else:
        pillow = source.transform((80, 60), Image.Transform.AFFINE, affine[name], Image.Resampling.BILINEAR)
    differ = np.abs(ours.astype(int) - np.asarray(pillow))
    assert np.median(differ) <= 1
    assert (differ > 4).mean() < 0.03  # beside the fill, which Pillow does not blend in


def test_turns_compose_in_the_order_drawn():
    turns = (Operation("shift_x", 10), Operation("rotate", 90.0))
    to_input = policies.turned(turns, (40, 40))
    np.testing.assert_allclose(to_input @ [19.5, 19.5 - 10, 1], [19.5, 19.5, 1], atol=1e-9)  # right by 10, then a quarter to the left: up
    image = smooth(40, 40)
    both = augment.render(image, Draw(policy=(policies.Chain(1.0, turns),)), (40, 40), fill="constant")
    shifted = np.zeros_like(image)
    shifted[:, 10:] = image[:, :-10]
    np.testing.assert_array_equal(both, np.rot90(shifted))


def test_a_policys_geometry_is_in_the_views_matrix_and_its_pixels_follow():
    image, turns = smooth(90, 120), (Operation("shear_x", 0.2), Operation("rotate", 20.0))
    plain = Draw(flip=True, crops=((0.4, 1.0, 0.3, 0.6),))
    drawn = Draw(flip=True, crops=plain.crops, policy=(policies.Chain(1.0, turns, (Operation("invert"),)),))
    base, whole = (augment.matrix(each, (90, 120), (48, 48)) for each in (plain, drawn))
    np.testing.assert_allclose(whole, base @ policies.turned(turns, (48, 48)))
    turned = augment.render(image, Draw(flip=True, crops=plain.crops, policy=(policies.Chain(1.0, turns),)), (48, 48))
    np.testing.assert_array_equal(augment.render(image, drawn, (48, 48)), 255 - turned)


def test_the_pixels_beyond_the_crop_come_into_view():
    image = np.full((64, 64, 3), 200, np.uint8)
    drawn = Draw(crops=((0.2, 1.0, 0.5, 0.5),), policy=(policies.Chain(1.0, (Operation("rotate", 30.0),)),))
    assert (augment.render(image, drawn, (32, 32), fill="constant") == 200).all()


def test_a_mixture_is_the_weighted_mean_of_its_chains():
    image, weights = smooth(50, 70), (0.4, 0.35, 0.25)
    parts = (
        policies.Chain(weights[0]),
        policies.Chain(weights[1], (Operation("rotate", 9.0),), (Operation("solarize", 99),)),
        policies.Chain(weights[2], (), (Operation("equalize"), Operation("color", 0.2))),
    )
    drawn = Draw(vertical_flip=True, policy=parts, pixels=(Operation("invert"),))
    alone = [
        augment.render(image, Draw(vertical_flip=True, policy=(policies.Chain(1.0, part.turns, part.pixels),)), (40, 30)) for part in parts
    ]
    expected = sum(weight * view for weight, view in zip(weights, alone, strict=True))
    found = augment.render(image, drawn, (40, 30))
    assert found.dtype == np.uint8
    np.testing.assert_allclose(255 - found.astype(float), expected, atol=0.51)
    plain = Draw(policy=(policies.Chain(1.0),))
    np.testing.assert_array_equal(augment.render(image, plain, (40, 30)), augment.render(image, Draw(), (40, 30)))


@pytest.mark.parametrize("policy", policies.POLICIES)
def test_views_are_redrawn_exactly_and_leave_the_other_draws_as_they_were(policy):
    image, fields = smooth(50, 60), config(policy=policy, flip=0.5, rotate=10.0, noise=5.0)
    plain = config(flip=0.5, rotate=10.0, noise=5.0)
    assert not augment.is_neutral(config(policy=policy))
    views = []
    for n in range(12):
        first, again = (augment.view(image, (32, 32), "squash", fields, view_rng(0, str(n), 2)) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert (first.shape, first.dtype) == ((32, 32, 3), np.uint8)
        views.append(first.tobytes())
        a, b = (augment.draw(view_rng(0, str(n), 2), each) for each in (fields, plain))
        assert (a.flip, a.rotate, a.pixels) == (b.flip, b.rotate, b.pixels)
    assert len(set(views)) == 12


def test_the_reduced_decode_suits_every_chain_of_a_mixture():
    sheared = policies.Chain(0.5, (Operation("shear_x", 0.3), Operation("shear_y", 0.3)))
    mixture = Draw(policy=(policies.Chain(0.5), sheared))
    factors = [augment.reduction(each, (640, 640), (200, 200)) for each in (Draw(), Draw(policy=(sheared,)), mixture)]
    assert factors[2] == min(factors)


def test_strength_0_shows_the_image():
    """Magnitude 0 of RandAugment: but autocontrast and equalize have none, and solarize inverts pure white even so."""
    image = np.clip(smooth(40, 40), 0, 254)
    for (chain,) in chains("rand_augment", "magnitude=0", 200):
        if {operation.name for operation in chain.pixels} & {"autocontrast", "equalize"}:
            continue
        np.testing.assert_array_equal(augment.render(image, Draw(policy=(chain,)), (40, 40)), image)


@pytest.mark.parametrize(
    ("policy", "args", "said"),
    [
        ("rand_augment", "operatons=2", "did you mean 'operations'"),
        ("rand_augment", "magnitude=31", "magnitude must be 0 or more and below bins"),
        ("rand_augment", "operations=2.5", "operations must be a whole number, such as operations=2"),
        ("aug_mix", "severity=11", "between 1 and 10"),
        ("aug_mix", "alpha=0", "above 0"),
        ("trivial_augment", "magnitude 3", "is not a list of arguments"),
        ("randaugment", "", "rand_augment"),
    ],
)
def test_mistakes_are_one_sentence(policy, args, said):
    with pytest.raises(UserError, match=said):
        policies.settings(policy, args)
