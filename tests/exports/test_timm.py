"""timm's names: what the file and config.json say; ask_timm.py has timm itself compute."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from untrained import KERAS, exportable, logits

from imgclf import UserError
from imgclf.exports import timm, told
from imgclf.exports.choices import Options


def written(classifier, folder):
    """The tensors of the file, which is also read back, and config.json."""
    timm.FORMAT.check(classifier, Options())
    timm.FORMAT.write(classifier, folder, Options())
    return load_file(folder / timm.MODEL_FILE), json.loads((folder / timm.CONFIG).read_text())


def test_the_network_is_told_to_compute_as_ours(tmp_path):
    classifier = exportable("mobilenet_v2_050", KERAS, classes=2, output="sigmoid")
    classifier.config.data.resize, classifier.config.data.crop_fraction = "crop", 0.875
    classifier = dataclasses.replace(classifier, licence={"licence": "apache-2.0"})
    tensors, config = written(classifier, tmp_path)
    assert config["architecture"] == "mobilenetv2_050"
    assert config["model_args"] == {"num_classes": 2, "bn_eps": 0.001, "pad_type": "same"}
    assert config["label_names"] == ["class 0", "class 1"]
    about = config["pretrained_cfg"]
    assert (about["input_size"], about["crop_pct"], about["crop_mode"]) == ([3, 64, 96], 0.875, "center")
    assert (about["mean"], about["license"]) == ([0.485, 0.456, 0.406], "apache-2.0")
    assert (about["first_conv"], about["classifier"]) == ("conv_stem", "classifier")
    assert tensors["bn1.num_batches_tracked"] == 0
    # the one output z stands for the logits [0, z]
    kernel = classifier.params["head"]["logits"]["kernel"]
    np.testing.assert_array_equal(tensors["classifier.weight"], np.stack([np.zeros(len(kernel)), kernel[:, 0]]))


@pytest.mark.parametrize(("biased", "activation"), [(True, lambda z: z * np.clip(z + 3, 0, 6) / 6), (False, lambda z: np.maximum(z, 0))])
def test_a_hidden_layer_that_timm_asks_for_changes_nothing(biased, activation):
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    params, stats = {"head/logits/kernel": kernel, "head/logits/bias": bias}, {}
    timm._insert_identity(params, stats, biased=biased)
    x = rng.uniform(-0.375 if biased else 0, 8, (20, 6))  # what averages of hard-swish, or of ReLU, can be
    hidden = x @ params["head/hidden/kernel"]
    if biased:
        hidden += params["head/hidden/bias"]
    else:
        assert (stats["head/bn/mean"] == 0).all()
        hidden /= np.sqrt(stats["head/bn/var"] + 1e-5)
    again = activation(hidden) @ params["head/logits/kernel"] + params["head/logits/bias"]
    np.testing.assert_allclose(again, x @ kernel + bias, atol=1e-5)


def test_position_embeddings_are_of_the_images_own_size(tmp_path):
    classifier = exportable("vit_small_patch14_reg4_dinov2", "pool='average'", size=(28, 42), zeros=True)
    model = timm.network(classifier)
    target = timm._target(classifier, model)
    assert target.model_args == {"num_classes": 5, "img_size": [28, 42], "global_pool": "avg", "fc_norm": False}
    params, _ = timm._adapted(classifier, model, target)
    assert params["backbone"]["embedding"]["position"].shape == (2 * 3, 384)


@pytest.mark.parametrize(
    ("model", "variant", "fields", "reason"),
    [
        ("mobilenet_v2_tiny", "", {}, "timm has no 'mobilenet_v2_tiny': export it with to=onnx or to=stablehlo"),
        ("resnet18", "conv_bias=True", {}, "with conv_bias=True"),
        ("convnext_nano", "", {"head.kind": "linear"}, r"convnext_nano has norm before its last layer, this run's head has nothing there"),
        ("resnet18", "", {"head.normalize": True}, "has no head like this run's"),
        ("vit_small_patch16_224", "depth=1", {}, "is no 'vit_small_patch16_224' with depth=1"),
    ],
)
def test_what_timm_has_not_is_refused_with_the_formats_that_work(model, variant, fields, reason):
    with pytest.raises(UserError, match=reason):
        timm.FORMAT.check(exportable(model, variant, zeros=True, **fields), Options())


def test_without_timm_the_round_trip_is_the_proof(color_classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(timm._UNPUBLISHED, "mobilenet_v2_tiny", "mobilenetv2_100")
    monkeypatch.setattr(timm.importlib.util, "find_spec", lambda name: None)
    found = color_classifier[0].export("timm", tmp_path / "timm", verbose=False)
    assert found.table["batches"] == []
    assert found.table["max_difference"] is None
    assert "bit by bit; timm was not at hand" in told.sentences(found)[0]
    assert told.table([found]).splitlines()[1].split()[:2] == ["timm", "float32"]


@pytest.mark.slow
def test_a_file_that_does_not_come_back_is_no_export(tmp_path, monkeypatch):
    damaged = timm.save_file
    monkeypatch.setattr(timm, "save_file", lambda tensors, *rest: damaged({k: v + 1 for k, v in tensors.items()}, *rest))
    with pytest.raises(AssertionError, match="does not come back"):
        timm.FORMAT.write(exportable("mobilenet_v2_050", zeros=True), tmp_path, Options())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mobilenet_v2_050", "mobilenet_v3_large"])
def test_timm_says_what_the_network_says(model, tmp_path):
    pytest.importorskip("timm")
    from untrained import images

    from imgclf.exports.programs import timm_network

    classifier = exportable(model)
    written(classifier, tmp_path)
    shown = images((64, 96))
    wanted = logits(classifier, shown)
    assert np.abs(timm_network.load(tmp_path)(shown)["logits"] - wanted).max() < 1e-4 * np.ptp(wanted)
