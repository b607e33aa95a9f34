"""Selections out of the real tables."""

import json

import pandas as pd
import pytest

from imgclf.errors import UserError
from imgclf.openimages import releases
from imgclf.openimages.metadata import Metadata
from imgclf.openimages.selection import Filters, load_selection, select

FOOD = "v5/test-annotations-bbox.csv"


@pytest.fixture
def v4(server, own_cache):
    return Metadata("V4", server.url("release/"))


def real(shared, split, kind="annotations-human-bbox"):
    return pd.read_csv(shared / "data/openimages/2017_11" / split / f"{kind}.csv")


def test_french_fries_of_the_66_photos(metadata, shared, tmp_path):
    selection = select(["french fry"], metadata, splits=["val"])
    expected = pd.read_csv(shared / "data/openimages/boxes.csv", dtype={"ImageID": str})
    merged = selection.boxes.sort_values(["image_id", "x_min"])
    expected = expected.sort_values(["ImageID", "XMin"])
    assert list(merged["image_id"]) == list(expected["ImageID"])
    for mine, theirs in (("x_min", "XMin"), ("x_max", "XMax"), ("y_min", "YMin"), ("y_max", "YMax")):
        assert list(merged[mine]) == list(expected[theirs])  # to the last bit
    assert selection.counts().to_dict("records") == [{"class_name": "French fries", "split": "validation", "boxes": 75, "photos": 66}]
    selection.save(tmp_path / "fries")
    again = load_selection(tmp_path / "fries")
    pd.testing.assert_frame_equal(again.boxes, selection.boxes)
    pd.testing.assert_frame_equal(again.images, selection.images)
    assert json.loads((tmp_path / "fries/selection.json").read_text())["labels"] == ["/m/02y6n"]
    assert not list((tmp_path / "fries").glob("*.part"))


def test_a_class_includes_its_descendants_and_the_most_specific_wins(v4, shared):
    both = select(["vehicles", "CAR"], v4)
    boxes = pd.concat([real(shared, split) for split in releases.SPLITS])
    car, vehicle = "/m/0k4j", "/m/07yv9"
    assert set(both.boxes.loc[both.boxes["class_name"] == "Car", "label"]) <= {car, "/m/01lcw4", "/m/0pg52", "/m/0h2r6"}
    alone = select(["Vehicle"], v4)
    assert set(alone.boxes["class_name"]) == {"Vehicle"}
    assert len(alone.boxes) == len(both.boxes)
    assert {car, vehicle} <= set(alone.boxes["label"])
    assert len(alone.boxes[alone.boxes["label"] == car]) == (boxes["LabelName"] == car).sum()


def test_flags_keep_unknown_ones_unless_asked(v4, shared):
    boxes = pd.concat([real(shared, split) for split in releases.SPLITS])
    person = boxes[boxes["LabelName"] == "/m/01g317"]
    count = len(select(["/m/01g317", "Man", "Woman", "Boy", "Girl"], v4).boxes.query("class_name == 'Person'"))
    assert count == len(person)

    def found(**kwargs):
        chosen = select(["Person", "Man", "Woman", "Boy", "Girl"], v4, filters=Filters(**kwargs)).boxes
        return len(chosen[chosen["class_name"] == "Person"])

    assert found(flags={"group_of": False}) == (~(person["IsGroupOf"] == 1)).sum()
    assert found(flags={"group_of": False}, keep_unknown=False) == (person["IsGroupOf"] == 0).sum()
    assert found(flags={"group_of": True}, keep_unknown=False) == (person["IsGroupOf"] == 1).sum()
    large = ((person["XMax"] - person["XMin"]) >= 0.2) & ((person["YMax"] - person["YMin"]) >= 0.2)
    assert found(min_size=0.2) == large.sum()


def test_a_quota_is_drawn_by_its_seed(v4):
    def chosen(seed, *names):
        boxes = select(names, v4, filters=Filters(per_class=7, seed=seed)).boxes
        return {name: set(zip(rows["image_id"], rows["x_min"], strict=True)) for name, rows in boxes.groupby("class_name")}

    first = chosen(0, "Man", "Woman")
    assert {name: len(boxes) for name, boxes in first.items()} == {"Man": 7, "Woman": 7}
    assert chosen(0, "Man", "Woman") == first
    assert chosen(1, "Man", "Woman") != first
    assert chosen(0, "Woman")["Woman"] == first["Woman"]  # whatever else is asked


def test_licences(v4):
    assert len(select(["Man"], v4, filters=Filters(licences=("cc by 2.0",))).images)
    with pytest.raises(UserError, match=r"No photo found has the licence 'CC0'; .*'CC BY 2.0'"):
        select(["Man"], v4, filters=Filters(licences=("CC0",)))


def test_entities_are_decoded_and_sizes_are_numbers(v4):
    images = pd.concat([select(["Man", "Woman", "Tree", "Clothing", "Car"], v4).images])
    assert images["title"].str.contains("[^a-z]&|'", regex=True).any()
    assert not images[["author", "title"]].apply(lambda column: column.str.contains(r"&(?:amp|quot|#x27|lt|gt);")).to_numpy().any()
    assert images["original_size"].dtype == "int64"
    assert (images["original_md5"].str.len() == 24).all()


def test_image_labels_with_explicit_negatives(metadata, shared):
    labels = pd.concat([real(shared, split, "annotations-human").assign(split=split) for split in releases.SPLITS])
    person = labels[labels["LabelName"] == "/m/01g317"]
    found = select(["Person"], metadata, image_labels=True, negatives=True).boxes
    negative = set(found.loc[found["class_name"] == "not Person", "image_id"])
    positive = set(found.loc[found["class_name"] == "Person", "image_id"])
    assert set(person.loc[person["Confidence"] == 1, "ImageID"]) <= positive
    assert negative <= set(person.loc[person["Confidence"] == 0, "ImageID"])
    assert not positive & negative
    assert negative
    assert (found[["x_min", "y_min", "x_max", "y_max"]].to_numpy() == [0, 0, 1, 1]).all()
    with pytest.raises(UserError, match=r"add image_labels=True to negatives=True"):
        select(["Person"], metadata, negatives=True)


def test_several_classes_of_one_photo_leave_it_out(metadata, shared):
    found = select(["Person", "Car"], metadata, image_labels=True)
    assert not found.boxes["image_id"].duplicated().any()
    assert any("several of the classes" in note for note in found.notes)


def test_a_class_without_boxes_offers_image_labels(metadata):
    with pytest.raises(UserError, match=r"'Vinegret' has no boxes in Open Images, only image-level labels: add image_labels=True"):
        select(["vinegret"], metadata)
    with pytest.raises(UserError, match=r"No photo of .* has a human-verified label 'Vinegret'"):
        select(["vinegret"], metadata, image_labels=True)
    with pytest.raises(UserError, match=r"no class 'Lobsterr' with boxes; did you mean 'Lobster'"):
        select(["Lobsterr"], metadata)


def test_nothing_found_is_told(metadata):
    with pytest.raises(UserError, match=r"V7 has no box of 'Zebra' in validation; .*image_labels=True"):
        select(["Zebra"], metadata, splits=["validation"])
    with pytest.raises(UserError, match=r"75 boxes were found, but none passes all filters: depiction=yes leaves none"):
        select(["French fries"], metadata, splits=["validation"], filters=Filters(flags={"depiction": True}, keep_unknown=False))
    selection = select(["French fries", "Zebra"], metadata, splits=["validation"])
    assert selection.notes == ("Nothing of 'Zebra' is left: try other splits, or fewer filters.",)


def test_ids_that_are_no_ids_are_refused(metadata, server, tmp_path):
    boxes = server.files["v5/validation-annotations-bbox.csv"].replace(b"001464cfae2a30b8", b"../../../../etc/", 1)
    server.files = {**server.files, "v5/validation-annotations-bbox.csv": boxes}
    with pytest.raises(UserError, match=r"'../../../../etc/' is no ImageID"):
        select(["French fries"], metadata, splits=["validation"])


def test_a_folder_without_a_selection_is_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no selection: make one with `imgclf openimages select"):
        load_selection(tmp_path)
