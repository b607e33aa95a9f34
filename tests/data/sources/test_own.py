"""Sources of the user's own: a class by its module, and one that an installed package offers."""

import sys
import textwrap

import numpy as np
import pytest
from pictures import folder_config

from imgclf.data import sources
from imgclf.data.prepare import prepare
from imgclf.data.table import load_dataset
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")

MODULE = """
    import numpy as np

    from imgclf.data.readers import Reader
    from imgclf.data.sources import Listing, Source
    from imgclf.errors import UserError


    class Stripes(Source):
        def __init__(self, data, count=8, horizontal=False):
            super().__init__(data)
            self.count, self.horizontal = count, horizontal

        def check(self):
            if self.count < 2:
                raise UserError("config.data.source_args: count must be 2 or more.")

        def listing(self):
            classes = ["thin", "wide"]
            return Listing(
                source="stripes",
                ids=[f"{name}/{row}" for name in classes for row in range(self.count)],
                reader=StripesReader(2 * self.count, self.horizontal),
                classes=[name for name in classes for _ in range(self.count)],
            )


    class StripesReader(Reader):
        def __init__(self, count, horizontal):
            self.count, self.horizontal = count, horizontal

        def __len__(self):
            return self.count

        def encoded(self, row):
            image = np.random.default_rng(row).integers(0, 255, (16, 16), dtype=np.uint8)
            image[:: 2 + 2 * (row >= self.count // 2)] = 255
            return image if self.horizontal else image.T.copy(), -1


    nothing = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "stripes_source.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("stripes_source", None)


def test_a_class_by_its_module_goes_through_the_table(module):
    config = folder_config("", source="stripes_source:Stripes", source_args="count=10, horizontal=True")
    dataset = load_dataset(config)
    assert dataset.class_names == ("thin", "wide")
    assert dataset.reader[0].shape == (16, 16, 3)
    assert (dataset.reader[0][0] == 255).all()
    assert sorted(prepare(config).dataset.table["split"].unique()) == ["test", "train", "val"]
    assert not np.array_equal(dataset.reader[0], dataset.reader[1])


def test_an_installed_source_by_its_entry_point(module, monkeypatch):
    folder = module / "stripes_source-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes-source\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[{sources.GROUP}]\nstripes = stripes_source:Stripes\n")
    monkeypatch.syspath_prepend(str(module))
    assert "stripes" in sources.names()
    assert len(load_dataset(folder_config("", source="stripes")).table) == 16


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("digit", "", "did you mean 'digits'.*'module:Class'"),
        ("base", "", "is unknown"),
        ("stripes_source:Strips", "", "did you mean 'Stripes'"),
        ("stripes_source:nothing", "", r"derive its class from imgclf\.data\.sources\.Source"),
        ("stripes_source:Stripes", "number=3", "does not fit.*count, horizontal"),
        ("stripes_source:Stripes", "count=1", "count must be 2 or more"),
        ("digits", "count=1", "takes: none"),
        ("tfds", "", r"needs config\.data\.tfds\.name"),
        ("folder", "", r"needs config\.data\.path"),
    ],
)
def test_mistakes_are_sentences(module, source, arguments, message):
    with pytest.raises(UserError, match=message):
        load_dataset(folder_config("", source=source, source_args=arguments))


def test_a_listing_must_fit_together():
    class Nothing(sources.Listing):
        pass

    from imgclf.data.readers import ArrayReader

    reader = ArrayReader(np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(UserError, match="2 ids and 1 classes"):
        Nothing("x", ["a", "b"], reader, ["cat"])
    with pytest.raises(UserError, match="'a' more than once"):
        Nothing("x", ["a", "a"], reader, ["cat", "dog"])
