"""The page of every augmentation: complete, self-contained, made by the code of training; mistakes are one sentence."""

import numpy as np
import pytest
from typer.testing import CliRunner

from imgclf.cli.commands import app
from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.reporting import augmentations

# Fields that only say more about those that the page shows.
DETAILS = {"crop_ratio", "fill_value", "erase_area", "erase_ratio", "mix_switch", "mix_probability", "flip_alternating", "image_size"}


def picture(h: int = 60, w: int = 90) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return np.stack([250 * y / h, 250 * x / w, 60 + 100 * (x > y)], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def sections():
    return augmentations.sections_of(picture(), 255 - picture())


def test_every_field_is_shown_and_shows_something(sections):
    rows = [row for _, _, rows in sections for row in rows]
    told = " ".join(row.fields for row in rows)
    assert {field for field in default_config().augment if field not in DETAILS and f"{field}=" not in told} == set()
    plain = augmentations.augment.view(picture(), augmentations.SIZE, "crop")
    for row in rows:
        views = [view for _, view in row.shown]
        assert all(view.shape == (*augmentations.SIZE, 3) and view.dtype == np.uint8 for view in views), row.name
        assert any((view != plain).any() for view in views), row.name


def test_mixed_pictures_are_mixed_by_the_share_they_name(sections):
    mixup = next(row for row in sections[-1][2] if row.name == "MixUp")
    one, other = (augmentations.augment.view(each, augmentations.SIZE, "crop").astype(float) for each in (picture(), 255 - picture()))
    for said, view in mixup.shown:
        share = float(said.split()[1])
        np.testing.assert_allclose(view, share * one + (1 - share) * other, atol=0.51)


def test_the_page_stands_alone(tmp_path, monkeypatch, sections):
    monkeypatch.setattr(augmentations, "sections_of", lambda image, partner: sections)
    path = augmentations.write_page([("a<b.jpg", picture()), ("c.jpg", picture())], picture(), tmp_path / "new" / "page.html")
    page = path.read_text()
    assert "a&lt;b.jpg" in page
    assert "a<b.jpg" not in page
    assert "http" not in page.split("<style>")[0].replace("http-equiv", "")
    assert page.count("<h2>Geometry</h2>") == 2
    assert augmentations.write_page([("c.jpg", picture())], picture(), path) == path  # an older page is replaced


@pytest.mark.parametrize(
    ("names", "said"), [(["no.jpg"], "can't be read"), (["text.jpg"], "is not an image"), (["text.jpg"] * 7, "up to 6")]
)
def test_mistakes_are_one_sentence(tmp_path, names, said):
    (tmp_path / "text.jpg").write_text("no picture")
    out = ["--out", str(tmp_path / "page.html")]
    result = CliRunner().invoke(app, ["data", "augmentations", *(str(tmp_path / name) for name in names), *out])
    assert isinstance(result.exception, UserError)
    assert said in str(result.exception)
