"""Parquet files as the library `datasets` writes them → table; from a folder, and from a hub on this machine."""

import hashlib
import http.server
import io
import json
import pickle

import loopback
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import folder_config, noise
from PIL import Image

from imgclf.data.prepare import load_path
from imgclf.data.table import load_dataset
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")
FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def png(seed: int) -> bytes:
    held = io.BytesIO()
    Image.fromarray(noise(12, 9, seed)).save(held, "PNG")
    return held.getvalue()


def write(path, seeds, labels, features=None, **more):
    columns = {
        "image": pa.array([{"bytes": png(seed), "path": f"{seed}.png"} for seed in seeds]),
        "label": pa.array(labels),
        **{name: pa.array(values) for name, values in more.items()},
    }
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)


def config_of(path, args: str = ""):
    return folder_config(path, source="hf", source_args=args)


@pytest.fixture
def snapshot(tmp_path):
    write(tmp_path / "data/train-00000-of-00002.parquet", range(5), [0, 1, 0, 1, 0], FEATURES)
    write(tmp_path / "data/train-00001-of-00002.parquet", range(5, 8), [1, 0, -1], FEATURES)
    write(tmp_path / "data/validation-00000-of-00001.parquet", range(8, 10), [0, 1], FEATURES)
    return tmp_path


def test_rows_splits_classes_and_hidden_labels(snapshot):
    dataset, read_as = load_path(snapshot)
    assert read_as.source == "hf"
    table = dataset.table
    assert table["id"].tolist()[:2] == ["data/train-00000-of-00002/000000", "data/train-00000-of-00002/000001"]
    assert table["split"].tolist() == ["train"] * 7 + ["val"] * 2
    assert table["class_name"].tolist() == ["cat", "dog", "cat", "dog", "cat", "dog", "cat", "cat", "dog"]
    assert dataset.quarantine[["id", "reason"]].to_numpy().tolist() == [["data/train-00001-of-00002/000002", "unlabeled"]]
    reader = pickle.loads(pickle.dumps(dataset.reader))  # as for a worker process
    for row, seed in ((8, 9), (0, 0), (6, 6), (4, 4)):
        np.testing.assert_array_equal(dataset.reader[row], noise(12, 9, seed))
        np.testing.assert_array_equal(reader[row], noise(12, 9, seed))


def test_a_file_without_features_and_one_with_two_classes(tmp_path):
    write(tmp_path / "plain.parquet", range(4), ["a", "b", "a", "b"])
    assert load_path(tmp_path / "plain.parquet")[0].class_names == ("a", "b")
    features = FEATURES | {"coarse": {"names": ["x", "y", "z"], "_type": "ClassLabel"}}
    write(tmp_path / "two/train.parquet", range(4), [0, 1, 0, 1], features, coarse=[0, 1, 2, 0])
    with pytest.raises(UserError, match=r"several columns that may be the label \(label, coarse\)"):
        load_dataset(config_of(tmp_path / "two"))
    assert load_dataset(config_of(tmp_path / "two", "label='coarse'")).class_names == ("x", "y", "z")
    with pytest.raises(UserError, match="no column 'species'"):
        load_dataset(config_of(tmp_path / "two", "label='species'"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="can't be read as parquet"):
        load_dataset(config_of(tmp_path / "bad.parquet"))


class _Hub(http.server.BaseHTTPRequestHandler):
    """The hub's answers for one data set: its revision, and its files."""

    root = None
    commit = hashlib.sha1(b"one").hexdigest()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        names = sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*.parquet"))
        headers, status = {}, 200
        if self.path.startswith("/api/datasets/me/pets/revision/"):
            body = json.dumps({"id": "me/pets", "sha": self.commit, "siblings": [{"rfilename": name} for name in names]}).encode()
        elif self.path.startswith("/api/datasets/me/pets/tree/"):
            entries = [{"type": "file", "path": name, "size": (self.root / name).stat().st_size, "oid": "0" * 40} for name in names]
            body = json.dumps(entries).encode()
        elif self.path.startswith("/datasets/me/pets/resolve/"):
            body = (self.root / self.path.split("/", 6)[6]).read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": self.commit}
        else:
            status, body, headers = 404, b"{}", {"X-Error-Code": "RepoNotFound"}
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def test_a_data_set_of_the_hub(snapshot, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(_Hub, "root", snapshot)
    with loopback.running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)) as server:
        loopback.use_hub(f"http://127.0.0.1:{server.server_port}", tmp_path_factory.mktemp("hub"), monkeypatch)
        dataset = load_dataset(config_of("hf://datasets/me/pets"))
        assert len(dataset.table) == 9
        np.testing.assert_array_equal(dataset.reader[8], noise(12, 9, 9))
        with pytest.raises(UserError, match="not on the hub"):
            load_dataset(config_of("hf://datasets/me/plants"))
    with pytest.raises(UserError, match="no address of a data set"):
        load_dataset(config_of("hf://me/pets"))
