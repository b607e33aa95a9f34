"""What `imgclf.create` chooses, runs and refuses."""

import io
import json
import runpy

import pandas as pd
import pytest
from color_images import QUICK
from rich.console import Console

import imgclf
from imgclf import config as config_lib
from imgclf.errors import UserError
from imgclf.models.weights.choice import NothingAtHand
from imgclf.workflows import create


@pytest.fixture(scope="module")
def data(color_folder) -> imgclf.ImageData:
    return imgclf.load_images(color_folder, verbose=False)


@pytest.fixture(scope="module")
def parts(color_classifier) -> tuple[imgclf.ImageData, imgclf.ImageData]:
    return color_classifier[1]


@pytest.fixture(scope="module")
def classifier(color_classifier) -> imgclf.Classifier:
    return color_classifier[0]


def test_the_method_depends_on_the_data_and_the_weights(data, monkeypatch):
    config, why, _ = create.settle(data.dataset, model="resnet50")
    assert (config.model.name, config.model.weights, config.train.method) == ("resnet50", "timm/resnet50.tv_in1k", "probe")
    assert config.data.image_size == (224, 224)
    assert "25 training images per class" in why
    assert create.settle(data.dataset, model="cnn")[0].train.method == "fit"
    assert create.settle(data.dataset, model="squeezenet1_1")[0].model.weights == "torchvision/squeezenet1_1.v1"
    assert create.settle(data.dataset, weights="keras/vgg16")[0].model.name == "vgg16"
    monkeypatch.setattr(create, "FINE_TUNE_PER_CLASS", 25)
    assert "on a CPU" in create.settle(data.dataset, model="resnet50")[1]
    monkeypatch.setattr(create, "FINE_TUNE_ON_CPU", 75)
    config, *_ = create.settle(data.dataset, model="resnet50")
    assert (config.train.method, config.augment.flip) == ("lp_ft", 0.5)
    assert create.settle(data.dataset, model="resnet50", overrides={"augment.flip": 0.0, "augment": {"rotate": 9}})[0].augment.rotate == 9


def test_without_any_weights_a_small_network_is_trained_from_scratch(data, monkeypatch):
    def choose():
        raise NothingAtHand("no network: fetch FILE")

    monkeypatch.setattr(create.weights_choice, "choose", choose)
    config, why, _ = create.settle(data.dataset)
    assert (config.model.name, config.model.weights, config.train.method) == ("cnn", "none", "fit")
    assert "A small network from scratch" in why
    assert why.endswith("no network: fetch FILE")


def test_recipes_are_those_of_the_configs(root, color_folder):
    fine_tuning = [(create.fine_tuning(model), "finetune", f",model={model}") for model in ("resnet50", "mobilenet_v2")]
    for recipe, name, model in (*fine_tuning, (create.FROM_SCRATCH | create.SMALL, "folder", "")):
        config = runpy.run_path(str(root / "configs" / f"{name}.py"))["get_config"](f"{color_folder}{model}")
        fields, defaults = config_lib.flatten(config), config_lib.flatten(config_lib.default_config())
        theirs = {field: value for field, value in fields.items() if value != defaults[field]}
        assert {field: fields[field] for field in recipe} == recipe
        left_out = {"name", "data.path", "data.image_size", "data.resize", "data.scenes", "model.name", "model.weights", "train.method"}
        assert {field for field in theirs if not field.startswith("model.cnn")} - set(recipe) <= left_out


def test_small_classes_do_without_val(data):
    assert create.settle(data.dataset, model="resnet50", method="lp_ft")[0].data.split.fractions == (0.9, 0.1, 0.0)
    assert create.settle(data.dataset, model="resnet50", method="probe")[0].data.split.fractions == (1.0, 0.0, 0.0)  # all images train
    few = data.filter(lambda table: table.groupby("class_name").cumcount() < 3)
    config, *_ = create.settle(few.dataset, model="resnet50")
    assert (config.data.split.fractions, config.probe.folds) == ((1.0, 0.0, 0.0), 10)


def test_one_photo_a_class_gives_a_classifier_and_no_estimate_in_a_fresh_folder(data, tmp_path, monkeypatch):
    one = data.filter(lambda table: table.groupby("class_name").cumcount() == 0)
    config, why, _ = create.settle(one.dataset, model="resnet50")
    assert (config.train.method, config.probe.solver) == ("probe", "nearest_mean")
    assert "can't be estimated; two of each class" in why
    monkeypatch.chdir(tmp_path)
    taken = tmp_path / "runs" / "image"
    taken.mkdir(parents=True)
    made = imgclf.create(one, model="mobilenet_v2_tiny", method="probe", config=QUICK, verbose=False)
    assert str(made.folder) == "runs/image-2"
    assert not list(taken.iterdir())
    assert made.predict(data[:3])["predicted"].isin(data.class_names).all()
    results = json.loads((made.folder / "results.json").read_text())
    assert results["split"] == "train"
    assert any("says nothing about new ones" in note for note in results["notes"])


def test_a_class_of_one_photo_among_others_is_told(data):
    single = data.filter(lambda table: (table.class_name != "red") | (table.groupby("class_name").cumcount() == 0))
    config, why, _ = create.settle(single.dataset, model="resnet50")
    assert (config.probe.solver, config.probe.folds, config.data.split.fractions) == ("logistic", 10, (1.0, 0.0, 0.0))
    assert "Class 'red' with one training image: how often that is recognised can't be estimated" in why


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
        create.settle(data.dataset, **({} if "weights" in arguments else {"model": "resnet50"}) | arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"model": 5}, "model=5. is no name"),
        ({"config": ["seed"]}, "holds no fields: give a dict"),
        ({"workdir": 5}, "the run's folder, workdir, is needed"),
    ],
)
def test_values_of_a_wrong_type_are_told(data, arguments, told):
    with pytest.raises(UserError, match=told):
        imgclf.create(data, **arguments)


def test_an_integer_is_a_square_size_and_a_number_of_epochs(data):
    config = create.settle(data.dataset, model="cnn", overrides={"data.image_size": 96, "train.duration": 5}).config
    assert tuple(config.data.image_size) == (96, 96)
    assert config.train.duration == "5 epochs"


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
    with pytest.raises(UserError, match=r"squeezenet1_1.*a file of your own as the weights, path:FILE"):
        imgclf.create(data, model="squeezenet1_1", verbose=False)
    assert not (tmp_path / "runs").exists()


def test_a_probe_trains_on_all_images_and_is_scored_by_cross_validation(data, tmp_path):
    made = imgclf.create(data, model="mobilenet_v2_tiny", method="probe", workdir=tmp_path / "run", config=QUICK, verbose=False)
    run = made.folder
    results = json.loads((run / "results.json").read_text())
    assert set(pd.read_parquet(run / "dataset.parquet")["split"]) == {"train"}
    assert (results["split"], results["n"]) == ("cross_validation", len(data.table))
    assert results["calibration"]["split"] == results["conformal"]["split"] == "cross_validation"
    assert "in cross-validation" in (run / "report.html").read_text()
    predictions = pd.read_csv(run / "predictions.csv")
    assert set(predictions["id"]) == set(data.table["id"])
    assert (predictions["true"] == predictions["predicted"]).mean() == pytest.approx(results["top1"])
    found = imgclf.evaluate(run)
    assert (found["split"], found["top1"], found["warnings"]) == ("cross_validation", results["top1"], [])
    assert "in cross-validation" in repr(found)
    with pytest.raises(UserError, match=r"All images of the run .* were trained on: name labeled images"):
        imgclf.robustness(run)
    assert "were trained on" in repr(made.evaluate(data))
    assert made.predict(data[:3], conformal=True)["set"].map(len).min() >= 1
    before = {name: (run / name).read_bytes() for name in ("results.json", "predictions.csv", "out_of_fold.npz")}
    (run / "results.json").unlink()
    imgclf.train(
        made.config, run, dataset=create.settle(data.dataset, model="resnet50", method="probe").dataset
    )  # what is there is scored again
    assert {name: (run / name).read_bytes() for name in before} == before


def test_create_runs_an_ordinary_experiment(classifier, parts):
    run = classifier.folder
    results = json.loads((run / "results.json").read_text())
    table = pd.read_parquet(run / "dataset.parquet")
    assert results["split"] == "cross_validation"
    assert set(table["id"]) == set(parts[0].table["id"])
    assert table["split"].value_counts().to_dict() == {"train": 60}
    assert (run / "report.html").exists()


def test_a_notebook_s_run_lies_in_the_cache_and_is_told(tmp_path, monkeypatch):
    (tmp_path / "beside").mkdir()
    monkeypatch.chdir(tmp_path / "beside")
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(create.notebook, "is_running", lambda: True)
    said = Console(record=True, width=10_000, file=io.StringIO())
    with create._folder("photos", None, said) as folder:
        assert folder == tmp_path / "cache" / "runs" / "photos"
        assert f"The run is kept in {folder}; workdir=DIR names another folder." in said.export_text()
    assert not list((tmp_path / "beside").iterdir())
    with create._folder("photos", tmp_path / "mine", said) as folder:
        assert folder == tmp_path / "mine"


@pytest.mark.slow
def test_the_four_lines_on_photographs(shared, tmp_path):
    data = imgclf.load_images(shared / "data" / "doraemon_walle", verbose=False)
    train, test = data.filter(lambda table: table.groupby("class_name").cumcount() % 3 == 0).split(0.7, seed=2, verbose=False)
    weights = f"path:{shared}/weights/mobilenet_v2_0.35_224_no_top.keras.h5"
    classifier = imgclf.create(train, weights=weights, workdir=tmp_path / "run", verbose=False)
    assert classifier.config.model.name == "mobilenet_v2_035"  # told from the file
    assert classifier.evaluate(test)["top1"] > 0.9
