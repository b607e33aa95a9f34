"""The audit: near-duplicate search against brute force, planted copies, what each mode does."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgclf.config import Config, default_config
from imgclf.data import audit as audit_module
from imgclf.data.audit import audit, duplicates, groups_with_copies, near_pairs
from imgclf.data.images import inspect
from imgclf.data.splits import assign_splits
from imgclf.data.table import Dataset, load_dataset
from imgclf.errors import UserError

properties = settings(deadline=None, derandomize=True, max_examples=80)
PHASH = 0x5555_5555_5555_5555  # 32 ones, as an image with structure has


class NumberReader:
    """Every pixel of row i is i."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> np.ndarray:
        return np.full((2, 2, 3), row, np.uint8)

    def read(self, row: int, min_size: tuple[int, int]) -> np.ndarray:
        return self[row]


def dataset(rows: list[dict]) -> Dataset:
    """Rows of split, and optionally label, sha256, phash, group, width; by default everything differs and every class stands in train."""
    rng = np.random.default_rng(0)
    rows = [{"split": "train", "label": label, "id": f"anchor{label}"} for label in (0, 1)] + rows
    different = [rng.permutation(np.repeat([0, 1], 32)).astype(np.uint8) for _ in rows]
    table = pd.DataFrame(
        [
            {
                "id": f"img{number - 2}",
                "source": "photos",
                "label": 0,
                "group": "",
                "sha256": f"{number:064x}",
                "width": 320,
                "height": 240,
                "phash": int(np.packbits(bits).view(">i8")[0]),
                **row,
            }
            for number, (row, bits) in enumerate(zip(rows, different, strict=True))
        ]
    )
    table["class_name"] = table["label"].map({0: "cat", 1: "dog"})
    return Dataset(table, ("cat", "dog"), pd.DataFrame(), {}, NumberReader(len(rows)))


def config(mode: str = "fix", bits: int = 6) -> Config:
    config = default_config()
    config.data.audit = mode
    config.data.near_duplicate_bits = bits
    return config


def many(split: str, count: int = 10) -> list[dict]:
    """Innocent rows, so that a copy is less than 20 % of its split."""
    return [{"split": split, "id": f"{split}{number}", "label": number % 2} for number in range(count)]


@st.composite
def hashes(draw):
    """Distinct 64-bit hashes of which many are near each other."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    found = []
    for _ in range(draw(st.integers(1, 40))):
        flips = draw(st.lists(st.integers(0, 63), max_size=10))
        found.append(draw(st.sampled_from(centres)) ^ sum({1 << flip for flip in flips}))
    return np.array(sorted(set(found)), np.uint64)


@properties
@given(hashes(), st.integers(0, 16), st.sampled_from([1, 7, 1 << 22]))
def test_near_pairs_equal_brute_force(values, bits, chunk):
    distance = np.bitwise_count(values[:, None] ^ values[None])
    expected = np.argwhere(np.triu(distance <= bits, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_module, "CHUNK", chunk)
        np.testing.assert_array_equal(near_pairs(values, bits), expected)


def test_too_many_near_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(audit_module, "MAX_PAIRS", 100)
    with pytest.raises(UserError, match=r"More than 100 pairs.*near_duplicate_bits=2; lower it"):
        near_pairs(np.arange(64, dtype=np.uint64), 2)


def photo(seed: int, height: int = 150, width: int = 200) -> Image.Image:
    """Smooth random colours with some texture."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 8, (height, width, 1)), 0, 255).astype(np.uint8))


def test_planted_copies_are_found_and_dropped_from_training(tmp_path):
    for split, count in (("train", 20), ("val", 10), ("test", 10)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                photo(hash_free(split, label, number)).save(folder / f"{number}.png")
    root = tmp_path / "photos"
    original = Image.open(root / "test/cat/0.png")
    (root / "train/cat/copy.png").write_bytes((root / "test/cat/0.png").read_bytes())
    Image.open(root / "test/dog/1.png").save(root / "train/dog/recompressed.jpg", quality=60)
    Image.open(root / "val/cat/2.png").resize((100, 75)).save(root / "train/cat/half.png")
    Image.open(root / "val/dog/3.png").resize((100, 75)).save(root / "train/cat/half_other_label.jpg", quality=60)
    Image.open(root / "test/cat/4.png").save(root / "val/cat/recompressed.jpg", quality=60)
    original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "train/cat/flipped.png")  # not found by design
    settings = config()
    settings.data.path = str(root)
    before = assign_splits(load_dataset(settings), settings)
    after, report = audit(before, settings)
    assert {(entry["id"], entry["split"], entry["reason"], entry["duplicate_of"]) for entry in report["dropped"]} == {
        ("train/cat/copy.png", "train", "exact duplicate", "test/cat/0.png"),
        ("train/dog/recompressed.jpg", "train", "near duplicate", "test/dog/1.png"),
        ("train/cat/half.png", "train", "near duplicate", "val/cat/2.png"),
        ("train/cat/half_other_label.jpg", "train", "near duplicate", "val/dog/3.png"),
        ("val/cat/recompressed.jpg", "val", "near duplicate", "test/cat/4.png"),
    }
    assert report["exact_duplicates"] == {"within": 0, "across": 1, "groups": [["test/cat/0.png", "train/cat/copy.png"]]}
    assert (report["near_duplicates"]["within"], report["near_duplicates"]["across"]) == (0, 4)
    assert report["label_conflicts"] == [
        {
            "ids": ["train/cat/half_other_label.jpg", "val/dog/3.png"],
            "classes": ["cat", "dog"],
            "splits": {"train": 1, "val": 1},
            "reason": "near duplicate",
        }
    ]
    assert report["in_training"]["val"] == {"of": 21, "copies": 2, "exact duplicate": 0, "near duplicate": 2, "same group": 0}
    assert report["in_training"]["test"] == {"of": 20, "copies": 2, "exact duplicate": 1, "near duplicate": 1, "same group": 0}
    assert report["counts"] == {"groups_across_splits": 0, "label_conflicts": 1, "dropped": 5}
    json.dumps(report)
    assert len(after.table) == len(before.table) - 5 == len(after.reader)
    assert after.table.index.equals(pd.RangeIndex(len(after.table)))
    for row, name in enumerate(after.table["id"]):
        np.testing.assert_array_equal(after.reader[row], np.asarray(Image.open(root / name)))
    again, second = audit(after, settings)
    assert again is after
    assert second["dropped"] == []


def hash_free(split: str, label: int, number: int) -> int:
    return ["train", "val", "test"].index(split) * 1000 + label * 100 + number


def test_images_that_the_hash_cannot_tell_apart_are_left_out():
    stripes = np.tile((np.arange(200) // 20 % 2 * 255).astype(np.uint8), (100, 1))
    ramp = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    phashes = [inspect(image, 10**6).phash for image in (stripes, ramp)]
    rows = [{"split": split, "phash": phash} for split, phash in zip(("train", "test"), phashes, strict=True)]
    tiny = [{"split": split, "phash": PHASH, "width": 31} for split in ("train", "test")]
    _, report = audit(dataset(rows + tiny), config("error"))
    assert (report["compared"], report["left_out"]) == (2, {"small": 2, "plain": 2})
    with pytest.raises(UserError):  # the same two at 32 px
        audit(dataset([{**row, "width": 32} for row in tiny]), config("error"))


def test_bits_set_the_distance():
    rows = [*many("test"), {"split": "train", "phash": PHASH}, {"split": "test", "phash": PHASH ^ 0b1111}]
    for bits, dropped in ((-1, 0), (0, 0), (2, 0), (4, 1), (6, 1)):
        assert len(audit(dataset(rows), config(bits=bits))[1]["dropped"]) == dropped


def test_fix_frees_what_copies_only_dropped_examples():
    rows = [
        *many("test"),
        *many("val"),
        {"split": "test", "group": "scene"},
        {"split": "test", "group": "scene"},  # the first of them is named
        {"split": "val", "group": "scene", "sha256": "a"},  # goes: same group as a test example
        {"split": "train", "sha256": "a"},  # stays: it copied only the row above
        {"split": "train", "group": "scene"},  # goes
    ]
    after, report = audit(dataset(rows), config())
    reasons = [(entry["id"], entry["reason"], entry["duplicate_of"]) for entry in report["dropped"]]
    assert reasons == [("img22", "same group", "img20"), ("img24", "same group", "img20")]
    assert "img23" in set(after.table["id"])
    assert report["groups_across_splits"] == [
        {"group": "scene", "splits": {"train": 1, "val": 1, "test": 2}, "ids": ["img20", "img21", "img22", "img24"]}
    ]


def test_off_reports_and_changes_nothing():
    rows = [{"split": "test", "sha256": "a"}, {"split": "train", "sha256": "a", "label": 1}]
    before = dataset(rows)
    after, report = audit(before, config("off"))
    assert after is before
    assert report["exact_duplicates"]["across"] == 1
    assert report["in_training"]["test"]["copies"] == 1
    assert report["counts"] == {"groups_across_splits": 0, "label_conflicts": 1, "dropped": 0}


def test_clashes_within_training_are_only_reported():
    rows = [{"split": "train", "sha256": "a"}, {"split": "train", "sha256": "a", "label": 1}, {"split": "train", "phash": PHASH}]
    rows += [{"split": "train", "phash": PHASH, "group": "g"}, {"split": "train", "group": "g"}]
    for mode in ("fix", "error"):
        before = dataset(rows)
        after, report = audit(before, config(mode))
        assert after is before
        assert report["exact_duplicates"] == {"within": 1, "across": 0, "groups": [["img0", "img1"]]}
        assert report["near_duplicates"] == {"within": 1, "across": 0, "groups": [["img2", "img3"]]}
        assert report["label_conflicts"][0]["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("related", [{"sha256": "a"}, {"phash": PHASH}, {"group": "g"}])
@pytest.mark.parametrize(("left", "right"), [("train", "test"), ("train", "val"), ("val", "test")])
def test_error_refuses_any_clash(related, left, right):
    rows = [{"split": left, **related}, {"split": right, **related}]
    with pytest.raises(UserError, match=rf"'img0' \({left}\) and 'img1' \({right}\).*'fix'"):
        audit(dataset(rows), config("error"))


def test_more_than_a_fifth_in_training_is_refused():
    copies = [{"split": split, "sha256": f"copy{number}"} for number in range(2) for split in ("train", "test")]
    assert len(audit(dataset(copies + many("test", 8)), config())[1]["dropped"]) == 2  # 2 of 10: not more than a fifth
    with pytest.raises(UserError, match=r"2 of 9 test examples \(22%\).*exact duplicate: 2.*config.data.audit='off'"):
        audit(dataset(copies + many("test", 7)), config())
    assert len(audit(dataset(copies + many("test", 7)), config("off"))[0].table) == 13


def test_fix_never_empties_a_split_or_a_class():
    val = [{"split": split, "sha256": "a"} for split in ("val", "test")]
    with pytest.raises(UserError, match="All examples of val"):
        audit(dataset(val + many("test")), config())
    data = dataset([{"split": "test", "sha256": "a", "label": 1}, *many("test")])
    data.table.loc[1, "sha256"] = "a"  # the only dog in training
    with pytest.raises(UserError, match="All training examples of class 'dog'"):
        audit(data, config())


@properties
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train", "train", "val", "test"]),
            st.integers(0, 60),
            st.integers(0, 60),
            st.integers(0, 60),
            st.integers(0, 1),
        ),
        max_size=60,
    )
)
def test_after_fix_nothing_straddles(drawn):
    rows = []
    for number, (split, content, look, group, label) in enumerate(drawn):
        row = {"split": split, "sha256": f"sha{content}", "label": label, "group": f"group{group}" if group < 50 else ""}
        if look < 12:  # a chain of hashes, each 6 bits from the next
            row["phash"] = PHASH ^ sum(0b111 << (3 * link) for link in range(look)) & (2**62 - 1)
        rows.append({**row, "id": f"img{number}"})
    before = dataset(rows)
    try:
        after, report = audit(before, config())
    except UserError as error:
        assert "copy" in str(error) or "in training" in str(error)  # noqa: PT017
        return
    again, second = audit(after, config("error"))
    assert again is after
    kept = before.table[~before.table["id"].isin([entry["id"] for entry in report["dropped"]])]
    assert after.table["id"].tolist() == kept["id"].tolist()
    assert [int(after.reader[row][0, 0, 0]) for row in range(len(after.table))] == kept.index.tolist()
    assert not any(entry["split"] == "test" for entry in report["dropped"])
    assert second["in_training"].get("test", {"copies": 0})["copies"] == 0


def test_lists_are_cut_and_counts_are_not(monkeypatch):
    monkeypatch.setattr(audit_module, "NAMED_GROUPS", 2)
    monkeypatch.setattr(audit_module, "NAMED_IDS", 3)
    rows = [{"split": "train", "sha256": f"sha{number // 5}", "label": number % 2} for number in range(25)]
    _, report = audit(dataset(rows), config())
    assert report["exact_duplicates"]["within"] == 5
    assert [len(group) for group in report["exact_duplicates"]["groups"]] == [3, 3]
    assert len(report["label_conflicts"]) == 2
    assert report["counts"]["label_conflicts"] == 5


def test_hash_on_real_photographs(shared: Path):
    """The table at the top of audit.py, in small: the default distance finds altered copies and only true pairs."""
    paths = sorted((shared / "data/doraemon_walle").rglob("*.jpg"))
    phashes = np.array([inspect(path.read_bytes(), 10**9).phash for path in paths]).view(np.uint64)
    order = np.argsort(phashes)
    pairs = [{paths[order[row]].name for row in pair} for pair in near_pairs(phashes[order], 6)]
    assert sorted(map(sorted, pairs)) == [["walle.105.jpg", "walle.158.jpg"], ["walle.113.jpg", "walle.88.jpg"]]  # looked at: true
    altered = []
    for path in paths[::8]:
        image = Image.open(path).convert("RGB")
        file = io.BytesIO()
        image.resize((image.width // 2, image.height // 2)).save(file, "JPEG", quality=60)
        altered.append(inspect(file.getvalue(), 10**9).phash)
    assert (np.bitwise_count(np.array(altered).view(np.uint64) ^ phashes[::8]) <= 6).mean() >= 0.97


def test_duplicates_of_a_table_whatever_its_splits():
    rows = [{"sha256": "f" * 64}, {"sha256": "f" * 64, "label": 1, "split": ""}, {"phash": PHASH}, {"phash": PHASH ^ 0b11, "split": "test"}]
    found = duplicates(dataset(rows).table, 4)
    assert {reason: [cluster.tolist() for cluster in clusters] for reason, clusters in found.items()} == {
        "exact duplicate": [[2, 3]],
        "near duplicate": [[4, 5]],
    }
    assert duplicates(dataset(rows).table, -1)["near duplicate"] == []


def test_groups_are_joined_through_copies():
    rows = [
        {"id": "m", "group": "g"},
        {"id": "n", "group": "g", "phash": PHASH},
        {"id": "c", "phash": PHASH ^ 0b11},
        {"id": "d", "sha256": "e" * 64},
        {"id": "e", "sha256": "e" * 64},
        {"id": "alone"},
        {"id": "single", "group": "of one"},
    ]
    assert groups_with_copies(dataset(rows).table, 4).tolist()[2:] == ["c", "c", "c", "d", "d", "", ""]
    assert groups_with_copies(dataset(rows).table, -1).tolist()[2:] == ["g", "g", "", "d", "d", "", ""]


def test_copies_join_groups_but_not_scenes():
    rows = [{"scene": "s"}, {"scene": "s", "phash": PHASH}, {"phash": PHASH}, {"scene": "t"}]
    assert groups_with_copies(dataset(rows).table.fillna({"scene": ""}), 4).tolist()[2:] == ["", "img1", "img1", ""]


def test_scenes_across_splits_are_told_and_nothing_is_dropped():
    rows = [
        *[{"split": "train", "scene": "s"}] * 2,
        *[{"split": "test", "scene": "s"}] * 3,
        *[{"split": "test", "scene": "only test"}] * 2,
        {"split": "val", "scene": "a single shot"},
        *many("test"),
    ]
    data = dataset(rows)
    data.table["scene"] = data.table["scene"].fillna("")
    for mode in ("fix", "error"):
        audited, report = audit(data, config(mode))
        assert len(audited.table) == len(data.table)
        assert report["scenes"] == {
            "scenes": 2,
            "images": 7,
            "largest": 5,
            "in_training": {"val": {"of": 1, "shots": 0}, "test": {"of": 15, "shots": 3}},
        }
    without = Dataset(data.table.drop(columns="scene"), data.class_names, data.quarantine, {}, data.reader)
    assert "scenes" not in audit(without, config())[1]
