"""Corruptions: their strengths, that they can be redrawn, and what is told of them; files of every orientation."""

import io

import numpy as np
import pytest
from PIL import Image

from imgclf.config import default_config
from imgclf.data import augment, images
from imgclf.errors import UserError
from imgclf.evaluation import robustness
from imgclf.evaluation.corruptions import CORRUPTIONS, SEVERITIES, canvas_size, corrupt, corrupted


@pytest.fixture(scope="module")
def photo():
    """Smooth, coloured, with an edge."""
    y, x = np.mgrid[:180, :240] / 240
    pixels = np.stack([255 * x, 200 * y + 40 * np.sin(30 * x), 120 + 80 * (x > y)], -1)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def config(size=(56, 56), resize="squash"):
    made = default_config()
    made.data.image_size, made.data.resize = size, resize
    return made


def test_severities_are_ordered_and_drawn_again(photo):
    clean = augment.view(photo, (56, 56)).astype(int)
    for name in CORRUPTIONS:
        views = [corrupted(photo, name, severity, config(), seed=0, example_id="a") for severity in SEVERITIES]
        change = [np.abs(view - clean).mean() for view in views]
        assert all(view.shape == (56, 56, 3) and view.dtype == np.uint8 for view in views)
        assert 0.1 < change[0] < change[2] < change[4], name
        assert np.array_equal(views[2], corrupted(photo, name, 3, config(), seed=0, example_id="a"))
    others = [corrupted(photo, "gaussian_noise", 3, config(), seed=seed, example_id=name) for seed, name in ((0, "a"), (1, "a"), (0, "b"))]
    assert not np.array_equal(others[0], others[1])
    assert not np.array_equal(others[0], others[2])
    turned = {corrupted(photo, "rotation", 5, config(), seed=0, example_id=str(i)).tobytes() for i in range(8)}
    assert len(turned) == 2  # to either side


def test_every_view_is_corrupted_and_mirror_images_are_those_of_corrupted_pictures(photo):
    several = config(resize="crop")
    several.eval.views = "crops"
    for name in CORRUPTIONS:
        views = corrupted(photo, name, 3, several, seed=0, example_id="a")
        assert views.shape == (6, 56, 56, 3)
        np.testing.assert_array_equal(views[::2, :, ::-1], views[1::2])
        np.testing.assert_array_equal(views[0], corrupted(photo, name, 3, config(resize="crop"), seed=0, example_id="a"))
    assert np.abs(views[0].astype(int) - views[4]).mean() > 1


def test_levels_are_imagenet_c_s(photo):
    view = augment.view(photo, (224, 224))
    grey = np.full((224, 224, 3), 128, np.uint8)
    assert corrupt(grey, "gaussian_noise", 0.08, 0).std() == pytest.approx(0.08 * 255, rel=0.02)
    assert corrupt(np.full((448, 448, 3), 128, np.uint8), "gaussian_noise", 0.08, 0).std() == pytest.approx(0.16 * 255, rel=0.03)
    means = view.mean((0, 1))
    np.testing.assert_allclose(corrupt(view, "contrast", 0.3, 0), np.clip((view - means) * 0.3 + means, 0, 255), atol=0.6)
    hsv = [np.asarray(Image.fromarray(pixels).convert("HSV")).astype(int) for pixels in (view, corrupt(view, "brightness", 0.1, 0))]
    assert np.abs(np.minimum(hsv[0][..., 2] + 25.5, 255) - hsv[1][..., 2]).max() <= 1
    black = np.zeros((224, 224, 3), np.uint8)
    assert (corrupt(black, "brightness", 0.2, 0) == 51).all()
    assert (corrupt(view, "dimness", 1.0, 0) == 0).all()
    dot = black.copy()
    dot[112, 112] = 255
    assert corrupt(dot, "gaussian_blur", 2, 0).max() == pytest.approx(255 / (2 * np.pi * 4), abs=1)
    for name, level in (("gaussian_noise", 0), ("gaussian_blur", 0), ("brightness", 0), ("dimness", 0), ("contrast", 1)):
        assert np.array_equal(corrupt(view, name, level, 0), view), name


def test_the_canvas_keeps_the_input_s_shape():
    assert canvas_size((48, 48)) == (224, 224)
    assert canvas_size((200, 150)) == (299, 224)
    assert canvas_size((299, 299)) == (299, 299)


@pytest.mark.parametrize("orientation", robustness.ORIENTATIONS)
def test_files_of_every_orientation_decode_to_the_same_picture(photo, orientation):
    data = robustness.stored(photo[:, :235], orientation)  # no multiple of a JPEG block
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get(0x0112) == orientation
        assert image.size == ((235, 180) if orientation < 5 else (180, 235))
    assert np.abs(images.decode(data).astype(int) - photo[:, :235]).max() <= 4


def test_the_summary_counts_each_corruption_alike():
    rng = np.random.default_rng(0)
    clean = rng.random((2, 200)) < 0.9
    correct = {robustness.CLEAN: clean, ("jpeg", 1): clean, ("jpeg", 5): clean, ("contrast", 5): clean & (rng.random((2, 200)) < 0.5)}
    summary = robustness.summarize(correct)
    worst = summary["corruptions"]["contrast"]["severities"]["5"]
    assert summary["clean"]["top1"] == clean.mean()
    assert summary["corruptions"]["jpeg"]["severities"]["1"]["drop_ci95"] == [0.0, 0.0]
    assert worst["drop"] == pytest.approx(clean.mean() - correct["contrast", 5].mean())
    assert worst["drop_ci95"][0] < worst["drop"] < worst["drop_ci95"][1]
    assert summary["mean_drop"] == pytest.approx(worst["drop"] / 2)
    assert summary["mean_top1"] == pytest.approx((clean.mean() + correct["contrast", 5].mean()) / 2)


def test_answers_by_orientation():
    probabilities = np.tile([0.6, 0.4], (3, 8, 1))
    probabilities[1, 4] = 0.45, 0.55
    assert robustness.orientations(probabilities) == {"images": 3, "same": 2, "largest_difference": pytest.approx(0.15)}


@pytest.mark.parametrize(
    ("names", "severities", "message"),
    [
        (["blur"], [1], "no corruption 'blur'.*gaussian_blur"),
        (["jpeg"], [6], "no severity 6"),
        ([], [1], "Nothing is left to test"),
    ],
)
def test_slips_are_named(names, severities, message):
    with pytest.raises(UserError, match=message):
        robustness.conditions(names, severities)
