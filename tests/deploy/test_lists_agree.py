"""One list, two readers: what trains can be predicted, however the list is written."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from imgclf.config import default_config
from imgclf.data.table import load_dataset
from imgclf.deploy import inputs


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for row in range(6):
        (root / "pictures" / str(row % 2)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (40 * row, 9, 9)).save(root / "pictures" / str(row % 2) / f"p {row}.png")
    return root


@given(
    forms=st.lists(
        st.sampled_from(["{folder}/{stem}.png", "{folder}/{stem}", "{stem}", "{folder}\\{stem}.png", " {folder}//{stem}.png "]),
        min_size=6,
        max_size=6,
    ),
    separator=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
    blanks=st.integers(0, 2),
    quoted=st.booleans(),
)
@settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_trains_can_be_predicted(photos, monkeypatch, forms, separator, end, mark, blanks, quoted):
    monkeypatch.setenv("IMGCLF_CACHE", str(photos / "cache"))
    cell = '"{}"' if quoted else "{}"
    lines = [separator.join((" path", "label "))]
    for row, form in enumerate(forms):
        path = form.format(folder=f"pictures/{row % 2}", stem=f"p {row}")
        lines.append(separator.join((cell.format(path), "cat" if row % 2 else "dog")))
    listed = photos / "list.csv"
    listed.write_text(mark + end.join(lines) + end * (1 + blanks), encoding="utf-8", newline="")
    config = default_config()
    config.data.source, config.data.path = "csv", str(listed)
    dataset = load_dataset(config)
    found = inputs.find([str(listed)])
    assert not found.bad
    assert [str(photos / name) for name in dataset.table["id"]] == list(found.paths)
    assert found.others["label"].tolist() == dataset.table["class_name"].tolist()
