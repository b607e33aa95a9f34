"""The shipped configs of transfer learning: what they say, and each of them from photos to report, with a file of random weights."""

import numpy as np
import pandas as pd
import pytest
from networks import created
from PIL import Image
from rich.console import Console

from imgclf import config as config_lib
from imgclf.errors import UserError
from imgclf.methods import resolve
from imgclf.workflows import train


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of 20 small pictures of one colour and noise, and a CSV of their stems."""
    folder, rng, rows = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), []
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir()
        for i in range(20):
            pixels = rng.integers(0, 160, (40, 52, 3), dtype=np.uint8)
            pixels[..., channel] += 90
            Image.fromarray(pixels).save(folder / name / f"{name}{i}.jpg")
            rows.append((f"{name}{i}", name))
    pd.DataFrame(rows, columns=["image_id", "label"]).to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(photos, tiny_weights, tmp_path_factory, root):
    """Runs a config at a tiny size, from its flags; returns the resolved config and results.json."""

    def call(name: str, argument: str, model: str, *fields: str) -> tuple[dict, dict]:
        tiny = [f"model.name={model}", f"model.weights={tiny_weights(model)}", "loader.threads=2", "eval.explain=0"]
        config = config_lib.load_config(f"{name}:{argument}", [*tiny, *fields])
        workdir = tmp_path_factory.mktemp(name)
        results = train.train(config, workdir, console=Console(quiet=True))
        assert (workdir / "report.html").exists()
        return config_lib.flatten(config_lib.from_json((workdir / "config.json").read_text())), results

    return call


SMALL = "data.image_size=(48, 48)"


def test_s4_is_a_logistic_probe(run, photos):
    fields, results = run("doraemon_resnet50", str(photos), "resnet_tiny", SMALL)
    assert results["method"] == "probe"
    assert results["probe"]["l2"] == pytest.approx(0.02 / 160)
    assert results["n"] == 12
    assert results["top1"] >= 0.9
    assert fields["data.split.seed"] == 2


def test_s1_trains_its_head_on_cached_features(run, photos):
    _, results = run("sports_mobilenet", str(photos), "mobilenet_v2_tiny", SMALL, "train.duration=2 epochs")
    assert results["method"] == "probe"
    assert results["probe"]["solver"] == "minibatch"
    assert results["steps"] > 0


def test_s2_reads_stems_splits_by_hash_and_trains_a_softmax_layer(run, photos):
    duration = ["train.duration=60 steps", "data.image_size=(96, 96)", "loader.batch_size=16"]
    fields, results = run("grocery_inception", f"{photos}/labels.csv,root={photos}", "inception_v3_tiny", *duration)
    assert results["method"] == "probe"
    assert fields["data.split.method"] == "hash"
    assert sorted(results["class_names"]) == ["blue", "green", "red"]


@pytest.mark.slow
def test_s2s_distortions_bypass_the_cache(run, photos):
    duration = ["train.duration=2 steps", "data.image_size=(96, 96)", "loader.batch_size=16"]
    fields, results = run("grocery_inception", f"{photos}/labels.csv,root={photos},distortions=True", "inception_v3_tiny", *duration)
    assert results["method"] == "fit"
    assert fields["freeze.preset"] == "head"
    assert results["params_trainable"] < 0.1 * results["params_total"]


def test_s3_freezes_blocks_1_to_4_and_takes_images_that_are_not_square(run, photos):
    small = ["data.image_size=(32, 48)", "loader.batch_size=8", "train.duration=2 steps"]
    small += ["freeze.preset=last_stage", "model.head.dense=(16,)"]  # the first 15 layers are those of VGG16
    fields, results = run("large_vgg16", str(photos), "vgg_tiny", *small)
    assert results["method"] == "fit"
    assert results["params_trainable"] < results["params_total"]
    assert fields["model.head.flatten"]


def test_anyones_folder_is_fine_tuned_from_a_probe(run, photos):
    small = [SMALL, "train.duration=2 epochs", "optimizer.learning_rate=1e-4"]
    _, results = run("finetune", f"{photos}", "vgg_tiny", *small)  # the quickest of them to compile
    assert results["method"] == "lp_ft"
    assert "probe" in results
    assert results["steps"] == 3


def test_s3s_frozen_layers_are_those_of_the_tutorial():
    """VGG16's first 15 layers in Keras: 7,635,264 parameters."""
    from flax import nnx

    from imgclf.models.weights.conversion import flatten
    from imgclf.training import freeze

    config = _config("large_vgg16", "x")
    assert config.data.image_size == (150, 200)
    config.model.weights = "none"
    model = nnx.eval_shape(lambda: created(config, 14951))
    freezing = freeze.create_freezing(config, model, 100, 10.0)
    sizes = {name: leaf.size for name, leaf in flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param))).items()}
    assert sum(size for name, size in sizes.items() if name not in freezing.trainable) == 7_635_264
    assert model.head.dense0.kernel.shape == (4 * 6 * 512, 256)


def _config(name: str, argument: str):
    return config_lib.load_config(f"{name}:{argument}")


def test_what_stands_after_the_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my, photos" / "a=b").mkdir(parents=True)
    (tmp_path / "labels.csv").touch()
    config = _config("finetune", "my, photos/a=b,model=resnet50")
    assert (config.data.path, config.model.name, config.model.weights) == ("my, photos/a=b", "resnet50", "timm/resnet50.tv_in1k")
    assert config.data.image_size == (224, 224)
    config = _config("finetune", "labels.csv,model=inception_v3,weights=timm/inception_v3.gluon_in1k")
    assert (config.data.source, config.data.image_size) == ("csv", (299, 299))
    assert resolve.check(_config("grocery_inception", "x.csv,distortions=True")).train.method == "fit"
    assert resolve.check(_config("grocery_inception", "x.csv,distortions=False")).train.method == "probe"


@pytest.mark.parametrize(
    ("name", "argument", "message"),
    [
        ("finetune", "", "needs your photos"),
        ("finetune", "photos,modle=resnet50", "takes no 'modle' after its colon .* did you mean 'model'"),
        ("finetune", "photos,model=resnet51", "did you mean 'resnet5"),
        ("finetune", "photos,model=squeezenet1_1", "The hub has no weights of 'squeezenet1_1'"),
        ("grocery_inception", "x.csv,distortions=yes", "write distortions=True or distortions=False"),
    ],
)
def test_a_users_mistake_after_the_colon_is_a_sentence(name, argument, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=message):
        _config(name, argument)
