"""What is drawn: from whom it depends, whom it leaves alone, and how it is distributed."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import EVERYTHING, augmentation, noise

from imgclf.config import default_config
from imgclf.data import augment

quick = settings(deadline=None, derandomize=True, max_examples=40)


def test_views_of_old_configs_are_as_they_were():
    """What a run with the fields of before drew, it draws again, so that it can be resumed and repeated."""
    drawn = augment.draw(augment.view_rng(7, "a/1.jpg", 3), augmentation(**EVERYTHING | {"margin_crop": 0.0, "margin_scale": 0.0}))
    rng = augment.view_rng(7, "a/1.jpg", 3)
    u, tries = rng.random(10), rng.random((10, 4))
    assert drawn.rotate == 40.0 * (2 * u[2] - 1)
    assert drawn.offset == (int(u[8] * 7) - 3, int(u[9] * 7) - 3)
    assert [crop[2:] for crop in drawn.crops] == [tuple(row[2:]) for row in tries.tolist()]
    assert drawn.margin[0] == 1.0
    assert drawn.color is drawn.erase is None


def test_random_resized_crop_has_torchvisions_distribution():
    """Area shares and log ratios are uniform over what fits, every place is reachable, and the result is a crop of the image."""
    fields = augmentation(crop_scale=(0.08, 1.0))
    image = noise(100, 100)
    shares, logs = [], []
    for n in range(2000):
        drawn = augment.draw(augment.view_rng(0, str(n), 0), fields)
        x_scale, _, x, _, y_scale, y = augment.matrix(drawn, (100, 100), (50, 50))[:2].ravel()
        w, h = x_scale * 50, y_scale * 50
        left, top = x - (x_scale - 1) / 2, y - (y_scale - 1) / 2
        assert min(left, top) > -1e-6
        assert max(left + w, top + h) < 100 + 1e-6
        shares.append(w * h / 1e4)
        logs.append(math.log(w / h))
        if n < 20:
            t, le, b, r = (round(v) for v in (top, left, top + h, left + w))
            expected = augment.view(image[t:b, le:r], (50, 50))
            np.testing.assert_array_equal(augment.render(image, drawn, (50, 50)), expected)
    assert 0.07 < min(shares) < 0.1
    assert max(shares) > 0.9
    assert max(map(abs, logs)) < math.log(4 / 3) + 0.06
    assert abs(np.mean(logs)) < 0.02
    assert abs(np.mean(shares) - 0.480) < 0.015  # torchvision 0.28: mean 0.480, standard deviation 0.235 over 20,000 draws
    assert abs(np.std(shares) - 0.235) < 0.01


@quick
@given(seed=st.integers(0, 2**31), ids=st.lists(st.text(max_size=8), min_size=2, max_size=6, unique=True), epoch=st.integers(0, 10_000))
def test_view_rng_depends_on_nothing_but_its_arguments(seed, ids, epoch):
    forwards = {key: augment.view_rng(seed, key, epoch).random(4).tolist() for key in ids}
    backwards = {key: augment.view_rng(seed, key, epoch).random(4).tolist() for key in reversed(ids)}
    assert forwards == backwards
    assert len({tuple(numbers) for numbers in forwards.values()}) == len(ids)
    assert augment.view_rng(seed, ids[0], epoch + 1).random() != forwards[ids[0]][0]
    assert augment.view_rng(seed + 1, ids[0], epoch).random() != forwards[ids[0]][0]


def test_one_kind_of_augmentation_leaves_the_others_as_they_were():
    plain, more = augmentation(flip=0.5, rotate=30.0), augmentation(**EVERYTHING | {"flip": 0.5, "rotate": 30.0})
    for n in range(20):
        a, b = (augment.draw(augment.view_rng(0, str(n), 0), fields) for fields in (plain, more))
        assert (a.flip, a.rotate) == (b.flip, b.rotate)


def test_is_neutral_knows_every_field():
    assert augment.is_neutral(default_config().augment)
    for field, value in (EVERYTHING | {"brightness": 0.1, "hue": 5.0, "grayscale": 0.1, "erase": 0.5, "cutout": 4}).items():
        assert not augment.is_neutral(augmentation(**{field: value})), field


@quick
@given(seed=st.integers(0, 2**31), name=st.text(max_size=8), epoch=st.integers(0, 10_000))
def test_an_alternating_flip_shows_both_sides_in_every_two_epochs(seed, name, epoch):
    def flips(start: int, **fields) -> list[bool]:
        drawn = augmentation(**{"flip": 0.5, "flip_alternating": True} | fields)
        return [augment.draw(augment.view_rng(seed, name, start + later), drawn).flip for later in range(4)]

    one, other, *again = flips(epoch)
    assert one != other
    assert again == [one, other]
    assert flips(0)[0] == flips(0, flip_alternating=False)[0]
    assert flips(epoch, flip=0.0) == [False] * 4


@quick
@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 10_000), taken=st.integers(0, 50))
def test_every_kind_has_a_stream_of_its_own(seed, epoch, taken):
    geometry = augment.view_rng(seed, "a", epoch)
    geometry.random(taken)
    kinds = (augment.GEOMETRY, augment.COLOR, augment.PIXELS, augment.POLICY, augment.ERASE)
    streams = {kind: augment.view_rng(seed, "a", epoch, kind).random(6).tolist() for kind in kinds}
    for kind, numbers in streams.items():
        assert augment.sibling(geometry, kind).random(6).tolist() == numbers
        assert augment.sibling(augment.view_rng(seed, "a", epoch, augment.ERASE), kind).random(6).tolist() == numbers
    assert len({number for numbers in streams.values() for number in numbers}) == 30
