"""The four lines: load, split, create, evaluate, on small pictures; and on real ones where they are at hand."""

import dataclasses
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import imgclf
from imgclf import config as config_lib
from imgclf.data.audit import near_pairs
from imgclf.errors import UserError
from imgclf.workflows import create

QUICK = {"data.image_size": (32, 32), "loader.batch_size": 8, "loader.eval_batch_size": 16}


def picture(path: Path, number: int, channel: int) -> Path:
    """A large-scale random pattern with a tint: no two are near duplicates."""
    rng = np.random.default_rng(number)
    grey = np.kron(rng.integers(0, 150, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    grey[..., channel] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "image"
    for channel, (name, count) in enumerate({"red": 30, "green": 25, "blue": 20}.items()):
        for i in range(count):
            picture(root / name / ("deep/er" if i % 2 else "") / f"{i:02d}.png", 100 * channel + i, channel)
    (root / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (root / "red" / ".DS_Store").write_bytes(b"x")
    return root


@pytest.fixture(scope="module")
def data(folder) -> imgclf.ImageData:
    return imgclf.load_images(folder, verbose=False)


@pytest.fixture(scope="module")
def parts(data) -> tuple[imgclf.ImageData, imgclf.ImageData]:
    return data.split(0.8, seed=2, verbose=False)


@pytest.fixture(scope="module")
def classifier(parts, tmp_path_factory):
    """A probe on an untrained backbone: colours are all it needs."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return imgclf.create(parts[0], model="mobilenet_v2_tiny", method="probe", workdir=workdir, config=QUICK, verbose=False)


# ---- ImageData ----


def test_a_folder_is_read_to_any_depth_and_says_what_it_skipped(folder, capsys):
    data = imgclf.load_images(folder)
    assert len(data) == 75
    assert data.class_names == ("blue", "green", "red")
    assert data.table["class_name"].value_counts().to_dict() == {"red": 30, "green": 25, "blue": 20}
    assert data.skipped[["id", "reason"]].to_numpy().tolist() == [["red/broken.jpg", "truncated"]]
    assert data.ignored == {".DS_Store": 1}
    assert "skipped: 1 file (1 truncated)" in capsys.readouterr().out


def test_a_table_is_read_and_a_saved_table_read_again(data, folder, tmp_path):
    data.table.to_csv(tmp_path / "images.csv")
    again = imgclf.load_images(tmp_path / "images.csv", root=str(folder), columns={"path": "id", "label": "class_name"}, verbose=False)
    pd.testing.assert_frame_equal(again.table[["id", "label", "sha256"]], data.table[["id", "label", "sha256"]])


def test_images_are_got_by_number_id_and_slice(data):
    assert data[0].shape == (48, 64, 3)
    assert data[0].dtype == np.uint8
    np.testing.assert_array_equal(data[-1], data[data.table["id"].iloc[-1]])
    assert data[5:9].table["id"].tolist() == data.table["id"].tolist()[5:9]
    with pytest.raises(IndexError):
        data[75]
    with pytest.raises(UserError, match=r"did you mean 'red/00\.png'"):
        data["red/00.pn"]
    assert len(list(data[:3])) == 3


def test_filters_keep_labels_and_classes_together(data):
    some = data.filter(["red", "blue"])
    assert some.class_names == ("blue", "red")
    assert [some.class_names[label] for label in some.table["label"]] == some.table["class_name"].tolist()
    assert len(data.filter("green")) == 25
    assert len(data.filter(lambda table: table["id"].str.startswith("red/deep"))) == 15
    np.testing.assert_array_equal(data.filter(data.table["id"] == "blue/04.png")[0], data["blue/04.png"])
    for by, told in ((["rad"], "did you mean 'red'"), (lambda table: table["width"] > 999, "None of 75"), ([True], "one True or False")):
        with pytest.raises(UserError, match=told):
            data.filter(by)


def test_nothing_changes_a_data_set(data):
    table, skipped = data.table, data.skipped
    table["class_name"] = skipped["id"] = "x"
    data.ignored["x"] = 1
    assert "x" not in set(data.table["class_name"]) | set(data.skipped["id"]) | set(data.ignored)


def test_it_shows_itself(data):
    assert repr(data).startswith("75 images of 3 classes: blue 20, green 25, red 30")
    assert data._repr_html_().count("<img src=") == 24


@pytest.mark.parametrize(
    ("path", "told"), [("imag", "did you mean 'image'"), ("nowhere/at/all", "check the path"), ("image/red/00.png", "neither a folder nor")]
)
def test_a_wrong_path_is_told(folder, path, told):
    with pytest.raises(UserError, match=told):
        imgclf.load_images(folder.parent / path)


def test_an_unknown_field_is_told(folder):
    with pytest.raises(UserError, match=r"did you mean 'data\.max_pixels'"):
        imgclf.load_images(folder, max_pixel=3)


# ---- split ----


@settings(deadline=None, derandomize=True, max_examples=25)
@given(fraction=st.floats(0.06, 0.94), seed=st.integers(0, 99))
def test_parts_are_exact_disjoint_and_complete(data, fraction, seed):
    first, second = data.split(fraction, seed=seed, verbose=False)
    ids = set(first.table["id"]), set(second.table["id"])
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == set(data.table["id"])
    counts = first.table["class_name"].value_counts()
    for name, of in (("red", 30), ("green", 25), ("blue", 20)):
        assert abs(counts.get(name, 0) - of * fraction) < 1 + 1e-9
    assert first.class_names == second.class_names == data.class_names
    assert set(first.table["split"]) == {"train"}
    assert set(second.table["split"]) == {"test"}


def test_the_same_seed_gives_the_same_split_whatever_the_order(data):
    first, _ = data.split(0.8, seed=2, verbose=False)
    again, _ = data[::-1].split(0.8, seed=2, verbose=False)
    other, _ = data.split(0.8, seed=3, verbose=False)
    assert (len(first), set(first.table["id"])) == (60, set(again.table["id"]))
    assert set(first.table["id"]) != set(other.table["id"])


def test_copies_never_stand_astride(folder, tmp_path, capsys):
    root = tmp_path / "image"
    shutil.copytree(folder, root)
    for name in ("red/00.png", "red/02.png", "blue/04.png", "green/06.png"):
        shutil.copy(root / name, root / name.replace(".png", "-copy.png"))
        Image.open(root / name).save((root / name).with_suffix(".jpg"), quality=90)
    data = imgclf.load_images(root, verbose=False)
    for seed in range(8):
        first, second = data.split(0.5, seed=seed)
        hashes = [set(part.table["phash"].to_numpy().view(np.uint64).tolist()) for part in (first, second)]
        assert not hashes[0] & hashes[1]
        values = np.array(sorted(hashes[0] | hashes[1]), np.uint64)
        for one, two in near_pairs(values, 6):
            assert (int(values[one]) in hashes[0]) == (int(values[two]) in hashes[0])
        assert abs(len(first) - len(second)) <= 3
    assert "kept whole: 4 groups of copies or of the data (12 images)" in capsys.readouterr().out


def test_a_class_of_one_image_is_refused(data):
    lonely = data.filter(lambda table: (table["class_name"] != "red") | (table["id"] == "red/00.png"))
    with pytest.raises(UserError, match="Class 'red' has 1 example, too few for train and test"):
        lonely.split(0.8)
    with pytest.raises(UserError, match="Class 'red' has 1 training image; a class needs two"):
        imgclf.create(lonely, model="mobilenet_v2_tiny", verbose=False)


@pytest.mark.parametrize(("fraction", "told"), [(80, "did you mean 0.8"), (1.0, "such as 0.8"), (-0.5, "such as 0.8")])
def test_a_wrong_fraction_is_told(data, fraction, told):
    with pytest.raises(UserError, match=told):
        data.split(fraction)


# ---- what create chooses ----


def test_the_method_depends_on_the_data_and_the_weights(data, monkeypatch):
    config, why, _ = create.settle(data.dataset)
    assert (config.model.name, config.model.weights, config.train.method) == ("resnet50", "timm/resnet50.tv_in1k", "probe")
    assert config.data.image_size == (224, 224)
    assert "25 training images per class" in why
    assert create.settle(data.dataset, model="cnn")[0].train.method == "fit"
    assert create.settle(data.dataset, model="squeezenet1_1")[0].model.weights == "torchvision/squeezenet1_1.v1"
    assert create.settle(data.dataset, weights="keras/vgg16")[0].model.name == "vgg16"
    monkeypatch.setattr(create, "FINE_TUNE_PER_CLASS", 25)
    assert "on a CPU" in create.settle(data.dataset)[1]
    monkeypatch.setattr(create, "FINE_TUNE_ON_CPU", 75)
    config, *_ = create.settle(data.dataset)
    assert (config.train.method, config.augment.flip) == ("lp_ft", 0.5)
    assert create.settle(data.dataset, overrides={"augment.flip": 0.0, "augment": {"rotate": 9}})[0].augment.rotate == 9


def test_recipes_are_those_of_the_configs(root):
    for recipe, name in ((create.FINE_TUNING, "finetune"), (create.FROM_SCRATCH, "folder")):
        config = runpy.run_path(str(root / "configs" / f"{name}.py"))["get_config"]("PHOTOS")
        fields, defaults = config_lib.flatten(config), config_lib.flatten(config_lib.default_config())
        theirs = {field: value for field, value in fields.items() if value != defaults[field]}
        assert {field: fields[field] for field in recipe} == recipe
        left_out = {"name", "data.path", "data.image_size", "model.name", "model.weights", "train.method"}
        assert {field for field in theirs if not field.startswith("model.cnn")} - set(recipe) <= left_out


def test_small_classes_do_without_val_and_with_fewer_folds(data):
    assert create.settle(data.dataset)[0].data.split.fractions == (0.9, 0.1, 0.0)
    few = data.filter(lambda table: table.groupby("class_name").cumcount() < 3)
    config, *_ = create.settle(few.dataset)
    assert (config.data.split.fractions, config.probe.folds) == ((1.0, 0.0, 0.0), 3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"model": "resnet51"}, "is not a model; did you mean"),
        ({"weights": "timm/resnet50.a1"}, "did you mean"),
        ({"method": "lpft"}, "did you mean 'lp_ft'"),
        ({"overrides": {"train.durations": "1 steps"}}, "did you mean 'train.duration'"),
        ({"overrides": {"seed": "x"}}, "wrong type"),
    ],
)
def test_wrong_wishes_are_told(data, arguments, told):
    with pytest.raises(UserError, match=told):
        create.settle(data.dataset, **arguments)


def test_one_class_is_refused_as_the_loader_refuses_it(data, tmp_path):
    with pytest.raises(UserError, match=r"has one class only, 'red'; a classifier needs two"):
        imgclf.create(data.filter("red"), model="cnn", workdir=tmp_path / "run", config=QUICK, verbose=False)
    assert not (tmp_path / "run").exists()


def test_only_labeled_images_train():
    with pytest.raises(UserError, match="needs labeled images"):
        imgclf.create("image")


def test_without_a_network_the_way_out_is_named(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"squeezenet1_1.*weights='path:FILE'"):
        imgclf.create(data, model="squeezenet1_1", verbose=False)
    assert not (tmp_path / "runs").exists()


# ---- the classifier ----


def test_create_runs_an_ordinary_experiment(classifier, parts):
    run = classifier.folder
    results = json.loads((run / "results.json").read_text())
    table = pd.read_parquet(run / "dataset.parquet")
    assert results["split"] == "val"
    assert set(table["id"]) == set(parts[0].table["id"])
    assert table["split"].value_counts().to_dict() == {"train": 54, "val": 6}
    assert (run / "report.html").exists()


def test_evaluation_has_its_interval_and_agrees_with_the_predictions(classifier, parts):
    result = classifier.evaluate(parts[1])
    table = classifier.predict(parts[1])
    assert table["id"].tolist() == parts[1].table["id"].tolist()
    assert table["true"].tolist() == parts[1].table["class_name"].tolist()
    assert result["top1"] == (table["predicted"] == table["true"]).mean() > 0.6
    assert result["top1_ci95"][0] < result["top1"]
    assert result["warnings"] == []
    assert "of 15 images right" in str(result)
    assert json.loads(json.dumps(result)) == result


def test_predictions_of_data_are_those_of_its_files(classifier, parts, folder):
    table = classifier.predict(parts[1], top_k=2)
    files = classifier.predict([folder / name for name in table["id"]], top_k=2)
    np.testing.assert_allclose(table["probability"], files["probability"], rtol=1e-5)


def test_classes_are_matched_by_name(classifier, parts):
    test = parts[1].filter(["red", "green"])  # their labels are 0 and 1 here, 1 and 2 in training
    whole = classifier.evaluate(parts[1])["per_class"]
    assert classifier.evaluate(test)["per_class"]["red"]["recall"] == whole["red"]["recall"]


def test_training_images_are_known_again(classifier, data, parts):
    assert classifier.evaluate(parts[0])["warnings"] == [
        "54 of 60 images were trained on: the accuracy on new images is lower.",
        "6 of 60 images helped to choose the model: the accuracy on new images is lower.",
    ]
    assert "Warning: 54 of 75 images were trained on" in str(classifier.evaluate(data))


def test_unseen_classes_are_named(classifier, tmp_path):
    for name in ("cyan", "red"):
        picture(tmp_path / "image" / name / "a.png", 7, 1)
    with pytest.raises(UserError, match="has not seen class 'cyan' in training"):
        classifier.evaluate(imgclf.load_images(tmp_path / "image", verbose=False))
    with pytest.raises(UserError, match="needs labeled images"):
        classifier.evaluate(["a.png"])


def test_mistakes_are_listed_and_shown(classifier, folder, tmp_path, capsys):
    names = [f"{name}/{number}.png" for name in ("red", "green", "blue") for number in ("00", "02", "04")]
    labels = ["red", "blue", "red", "green", "red", "green", "blue", "blue", "blue"]
    pd.DataFrame({"path": names, "label": labels}).to_csv(tmp_path / "labels.csv")
    data = imgclf.load_images(tmp_path / "labels.csv", root=str(folder), verbose=False)
    table = classifier.predict(data)
    wrong = table[table["predicted"] != table["true"]]
    page = tmp_path / "out" / "mistakes.html"
    found = classifier.mistakes(data, page)
    assert len(found) == len(wrong) >= 2
    assert set(found["id"]) == set(wrong["id"])
    assert found["probability"].is_monotonic_decreasing
    assert (found["true_probability"] < found["probability"]).all()
    assert page.read_text().count("<img src=") == len(found)
    assert f"{len(found)} mistake" in capsys.readouterr().out
    classifier.mistakes(data, page, verbose=False)  # its own page is replaced
    page.write_text("notes")
    with pytest.raises(UserError, match="no page of imgclf's"):
        classifier.mistakes(data, page)
    assert page.read_text() == "notes"
    classifier.mistakes(data, page, overwrite=True, verbose=False)
    assert "<img src=" in page.read_text()


def test_pages_go_into_the_run_and_replace_no_other(classifier, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(classifier.folder, run)
    copy = imgclf.load(run)
    for data in (parts[1], parts[0], parts[1]):
        copy.mistakes(data, verbose=False)
    assert sorted(path.name for path in run.glob("*mistakes*")) == ["mistakes-2.html", "mistakes.html"]
    assert list(tmp_path.iterdir()) == [run]
    other = dataclasses.replace(copy, temperature=2.0)  # another model
    page = run / "mistakes.html"
    before = page.read_bytes()
    with pytest.raises(UserError, match=r"holds another page \(mistakes: run on 15 images of image\).*overwrite=True"):
        other.mistakes(parts[1], page)
    assert page.read_bytes() == before
    other.mistakes(parts[1], page, overwrite=True, verbose=False)
    with pytest.raises(UserError, match="holds another page"):
        copy.mistakes(parts[1], page)


def test_explore_replaces_its_own_page_only(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few, others = data[:4], data[4:9]
    pages = [some.explore(verbose=False).name for some in (few, others, few)]
    assert pages == ["explore.html", "explore-2.html", "explore.html"]
    with pytest.raises(UserError, match=r"holds another page \(images: 4 images of image\)"):
        others.explore("explore.html")
    others.explore("explore.html", overwrite=True, verbose=False)


def test_a_saved_model_predicts_the_same_without_the_run(classifier, parts, tmp_path):
    run, expected = tmp_path / "run", classifier.predict(parts[1])
    shutil.copytree(classifier.folder, run)
    model = imgclf.load(run).save(tmp_path / "model")
    shutil.rmtree(run)
    again = imgclf.load(model)
    pd.testing.assert_frame_equal(again.predict(parts[1]), expected)
    assert again.evaluate(parts[0])["warnings"]
    assert "red/" not in pd.read_parquet(model / "dataset.parquet").to_csv()
    model.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="is gone"):
        again.save(tmp_path / "second")


def test_saving_overwrites_saved_models_only(classifier, tmp_path):
    first = classifier.save(tmp_path / "model")
    (first / "results.json").write_text("{}")
    assert imgclf.load(classifier.save(first)).class_names == ("blue", "green", "red")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    other = tmp_path / "photos"
    other.mkdir()
    classifier.save(other)  # empty
    for target in (tmp_path / "notes", tmp_path / "diary.txt"):
        if target.suffix:
            target.write_text("dear")
        else:
            (target / "sub").mkdir(parents=True)
        for overwrite in (False, True):
            with pytest.raises(UserError, match="no saved model"):
                classifier.save(target, overwrite=overwrite)
    assert (tmp_path / "diary.txt").read_text() == "dear"
    another = dataclasses.replace(classifier, temperature=2.0)
    with pytest.raises(UserError, match=r"holds another saved model \(from run run\).*overwrite=True"):
        another.save(first)
    assert another.save(first, overwrite=True) == first
    with pytest.raises(UserError, match="where this classifier comes from"):
        classifier.save(classifier.folder)


def test_interrupted_saving_leaves_the_old_model(classifier, tmp_path, monkeypatch):
    model = classifier.save(tmp_path / "model")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError, match="No space left"):
        classifier.save(model)
    monkeypatch.undo()
    assert imgclf.load(model).class_names == ("blue", "green", "red")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_runs_get_fresh_folders(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = QUICK | {"train.duration": "1 steps", "model.cnn.widths": (4,)}
    runs = [imgclf.create(parts[0], model="cnn", config=fields, verbose=False).folder for _ in range(2)]
    assert [str(run) for run in runs] == ["runs/image", "runs/image-2"]


def test_importing_is_quick_and_loading_images_starts_no_jax(folder):
    script = (
        "import sys, imgclf; assert not {'jax', 'pandas', 'numpy'} & set(sys.modules); "
        f"data = imgclf.load_images({str(folder)!r}); data.split(0.8); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, stdout=subprocess.DEVNULL)


def test_the_four_lines_on_photographs(shared, tmp_path):
    pytest.importorskip("h5py")
    data = imgclf.load_images(shared / "data" / "doraemon_walle", verbose=False)
    train, test = data.filter(lambda table: table.groupby("class_name").cumcount() % 3 == 0).split(0.7, seed=2, verbose=False)
    weights = f"path:{shared}/weights/mobilenet_v2_0.35_224_no_top.keras.h5"
    classifier = imgclf.create(train, weights=weights, workdir=tmp_path / "run", verbose=False)
    assert classifier.config.model.name == "mobilenet_v2_035"  # told from the file
    assert classifier.evaluate(test)["top1"] > 0.9
