"""An export from a run to a folder that works without imgclf; and what keeps one from being finished."""

import dataclasses
import importlib
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

import imgclf
from imgclf.deploy import exporting
from imgclf.errors import UserError
from imgclf.exports import folder, formats, told
from imgclf.exports import onnx as to_onnx
from imgclf.exports.choices import Options


@pytest.fixture(scope="module")
def classifier(color_classifier):
    return color_classifier[0]


@pytest.fixture(scope="module")
def exported(classifier, tmp_path_factory):
    return classifier.export("onnx", tmp_path_factory.mktemp("exports") / "onnx", verbose=False)


def test_an_export_says_what_the_classifier_says(classifier, exported, color_folder):
    paths = sorted((color_folder / "blue").rglob("*.png"))[:5]
    program = "import sys; sys.path.insert(0, sys.argv[1]); from predict import Model; m = Model(); p = m.probabilities(sys.argv[2:])"
    program += "; import json; assert not {'imgclf', 'jax'} & set(sys.modules); print(json.dumps([m.class_names, p.tolist()]))"
    command = [sys.executable, "-I", "-c", program, exported.folder, *map(str, paths)]
    names, found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert tuple(names) == classifier.class_names
    np.testing.assert_allclose(found, classifier.predict_probabilities(paths), atol=1e-4)
    assert exported.table["batches"] == [1, 3, 16]
    assert exported.table["max_difference"] <= 1e-4
    assert exported.table["top1_agreement"] == 1
    assert {"megabytes", "cold_start_s", "ms_batch_1", "ms_batch_16"} <= exported.table.keys()
    assert "100.0%" in told.table([exported])


def test_the_folder_describes_itself(classifier, exported):
    again = folder.read(exported.folder)
    assert again.class_names == classifier.class_names
    assert again.size == tuple(classifier.config.data.image_size)
    assert again.temperature == classifier.temperature
    assert again.conformal == classifier.conformal
    found = again.open_set()
    assert found is not None
    np.testing.assert_array_equal(found.scores, classifier.open_set.scores)
    assert len(list((exported.folder / "golden").glob("*.npy"))) == 3
    import onnx

    model = onnx.load(exported.model)
    assert {entry.version for entry in model.opset_import} == {17}
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["class_names"]) == list(classifier.class_names)
    assert json.loads(said["preprocessing"])["size"] == [32, 32]


def test_names_that_are_no_text_are_kept(classifier, tmp_path):
    names = ("caf\udce9", "a, b", "\N{CAT FACE}")
    made = dataclasses.replace(exporting.exportable(classifier), class_names=names)
    said = {name: text.encode() for name, text in to_onnx._metadata(made).items()}
    assert tuple(json.loads(said["class_names"])) == names
    about = folder.describe(made, "onnx", "model.onnx", Options(), {})
    folder.finish(tmp_path, about | {"table": {}})
    assert folder.read(tmp_path).class_names == names


@pytest.mark.parametrize("name", ["model.onnx", "preprocess.py", "golden/0.npy", "export.json"])
def test_a_changed_byte_or_a_missing_file_is_named(exported, tmp_path, name):
    place = tmp_path / "copy"
    shutil.copytree(exported.folder, place)
    data = bytearray((place / name).read_bytes())
    data[len(data) // 2] ^= 1
    (place / name).write_bytes(data)
    with pytest.raises(UserError, match=name):
        folder.read(place)
    (place / name).unlink()
    with pytest.raises(UserError, match=name):
        folder.read(place)


def test_its_own_program_answers_what_can_be_read_and_says_what_can_not(exported, color_folder, tmp_path, monkeypatch, capsys):
    for name in ("predict", "preprocess"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(exported.folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    program = importlib.import_module("predict")
    photo = str(next(color_folder.rglob("*.png")))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff half")
    assert program.main([str(tmp_path / "broken.jpg"), photo, "missing.jpg"]) == "2 of 3 images can't be read."
    said = capsys.readouterr()
    assert said.out.startswith(f"{photo}\t")
    assert "missing.jpg can't be read" in said.err
    assert program.main([photo]) == ""
    assert program.main(["--help"]) == "python predict.py PHOTO..."
    monkeypatch.setattr(program.Model.__init__, "__defaults__", (tmp_path,))
    assert "can't be opened (FileNotFoundError" in program.main([photo])
    for name in ("predict", "preprocess"):
        sys.modules.pop(name)


def test_imgclf_load_says_what_else_a_folder_is(exported):
    with pytest.raises(UserError, match="is an export"):
        imgclf.load(exported.folder)


def test_another_version_is_refused(exported, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(exported.folder, place)
    about = json.loads((place / "export.json").read_text())
    (place / "export.json").write_text(json.dumps(about | {"schema": 99}))
    with pytest.raises(UserError, match="another version"):
        folder.read(place)
    with pytest.raises(UserError, match="no export"):
        folder.read(tmp_path)


def test_the_gate_stops_a_perturbed_weight(classifier, tmp_path, monkeypatch):
    def perturbed(made, place, options):
        leaves, tree = jax.tree.flatten(made.params)
        place_of = max(range(len(leaves)), key=lambda i: leaves[i].ndim * 10**6 + leaves[i].size)
        leaves[place_of] = leaves[place_of] + 0.05
        return to_onnx.FORMAT.write(dataclasses.replace(made, params=jax.tree.unflatten(tree, leaves)), place, options)

    monkeypatch.setattr(formats, "find", lambda name: dataclasses.replace(to_onnx.FORMAT, write=perturbed))
    with pytest.raises(UserError, match=r"does not say what the classifier says, and was not kept: with 1 images at a time, its logits of"):
        classifier.export("onnx", tmp_path / "made" / "onnx", verbose=False)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(classifier, tmp_path, monkeypatch):
    def full(made, place, options):
        (place / "model.onnx").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(formats, "find", lambda name: dataclasses.replace(to_onnx.FORMAT, write=full))
    with pytest.raises(UserError, match="No space left"):
        classifier.export("onnx", tmp_path / "made" / "onnx", verbose=False)
    assert not list(tmp_path.iterdir())


def test_mistakes_are_one_sentence(classifier, tmp_path):
    with pytest.raises(UserError, match="no export to 'onxx'; did you mean 'onnx'"):
        classifier.export("onxx", tmp_path / "x", verbose=False)
    with pytest.raises(UserError, match="not both"):
        classifier.export(int8=True, fp16=True, verbose=False)
    with pytest.raises(UserError, match="stablehlo is in float32, not in int8"):
        classifier.export("stablehlo", tmp_path / "x", int8=True, verbose=False)
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="a folder with other things"):
        classifier.export("onnx", tmp_path, verbose=False)
    gone = dataclasses.replace(classifier, folder=tmp_path / "gone")
    with pytest.raises(UserError, match="name others with images=FOLDER"):
        gone.export("onnx", tmp_path / "x", verbose=False)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_missing_package_names_the_line_that_installs_it(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(to_onnx.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"imgclf\[onnx\]"):
        classifier.export("onnx", tmp_path / "x", verbose=False)


def test_the_images_that_are_left_are_taken(classifier, color_folder, tmp_path):
    """Those of a run that are gone, or have changed, are left out; another folder may be named."""
    pictures = exporting.exportable(classifier).pictures
    sample = pictures.sample(6)
    assert len({picture.id.split("/")[0] for picture in sample}) == 3
    assert [picture.id for picture in pictures.sample(6)] == [picture.id for picture in sample]
    moved = tmp_path / "image"
    shutil.copytree(color_folder, moved)
    (moved / sample[0].id).write_bytes(b"changed")
    (moved / sample[1].id).unlink()
    pictures._table = pictures._table.assign(source=str(moved))
    assert [picture.id for picture in pictures.sample(6)][:4] == [picture.id for picture in sample[2:]]
    named = exporting.exportable(classifier, moved).pictures
    assert named.sample(1)[0].shown.shape == (32, 32, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("to", "fields"), [("stablehlo", {}), ("onnx", {"int8": True}), ("onnx", {"fp16": True})])
def test_other_forms(classifier, color_folder, tmp_path, to, fields):
    found = classifier.export(to, tmp_path / "x", verbose=False, **fields)
    assert found.table["top1_agreement"] >= 0.97
    assert ("int8" in fields) == ("cost" in found.table)
    if "int8" in fields:
        assert "kB; " in found.table["cost"]
        assert "It is no smaller" in found.table["cost"]
    photo = str(next(color_folder.rglob("*.png")))
    command = [sys.executable, "-I", str(found.folder / "predict.py"), photo]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\t")
    row = classifier.predict(photo).iloc[0]
    assert said[1] == row["predicted"]
    assert float(said[2]) == pytest.approx(row["probability"], abs=0.05)
    assert found.precision == {"int8": "int8", "fp16": "float16"}.get(next(iter(fields), ""), "float32")


@pytest.mark.slow
@pytest.mark.parametrize("views", ["flip", "crops"])
def test_views_of_an_export(classifier, tmp_path, views):
    config = classifier.config.copy_and_resolve_references()
    config.eval.views = views
    several = dataclasses.replace(classifier, config=config)
    found = exporting.export(several, "onnx", tmp_path / "x", options=Options(), console=Console(quiet=True))
    assert found.about["views"] == "flip"
    assert ("three framings" in found.about["note"]) == (views == "crops")
    assert found.table["max_difference"] <= 1e-4
