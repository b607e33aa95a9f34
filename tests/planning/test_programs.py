"""The programs that are compiled are training's own, made of shapes; a compiler for TPUs takes them where one is installed."""

import importlib.util
import subprocess

import jax
import pytest
from flax import nnx
from rich.console import Console

import imgclf
from imgclf import models
from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.methods import resolve
from imgclf.models import forms
from imgclf.planning import child, compiling, lowered, programs
from imgclf.training import freeze, sharding
from imgclf.workflows.asked import asked_for
from imgclf.workflows.plan import _sizes


@pytest.fixture
def config():
    config = default_config()
    config.name, config.data.path, config.data.image_size = "planned", "/nowhere", (16, 16)
    config.model.cnn.widths, config.model.precision = (8, 16), "bf16"
    config.augment.erase, config.augment.brightness = 0.5, 0.2
    config.train.duration, config.loader.batch_size, config.loader.eval_batch_size = "2 epochs", 64, 64
    return config


def test_programs_are_for_the_described_devices_and_nothing_is_made(config):
    resolved = resolve.resolve(resolve.check(config), 10)
    assert programs.names(resolved) == ("train", "eval")
    with forms.meshes_stand_for(forms.Target("tpu", 4)):
        mesh = sharding.create_mesh(jax.devices()[:1])
        step = programs.create("train", resolved, 10, 640, mesh)
        text = step.traced().lower(lowering_platforms=("tpu",)).as_text()
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(step.arguments))
    state, batch, _ = step.arguments
    assert step.donatable == len(jax.tree.leaves(state))
    assert {name: leaf.shape for name, leaf in batch.items()} == {
        "image": (64, 16, 16, 3),
        "label": (64,),
        "color": (64, 3, 4),
        "erase": (64, 1, 4),
    }
    found = lowered.count(text, text)
    assert found["convolutions"]["count"] > 0 == found["convolutions"]["f32"]
    assert found["donated"] == step.donatable
    assert found["cpu_forms"] == []


def test_the_other_programs_have_the_arguments_of_their_callers(config):
    config.train.method, config.eval.views = "probe", "flip"
    resolved = resolve.resolve(resolve.check(config), 10)
    assert programs.names(resolved) == ("eval", "features")
    mesh = sharding.create_mesh(jax.devices()[:1])
    *_, batch = programs.create("eval", resolved, 10, 640, mesh).arguments
    assert batch["image"].shape == (64, 2, 16, 16, 3)
    features = programs.create("features", resolved, 10, 640, mesh)
    assert features.arguments[-1]["image"].shape == (64, 16, 16, 3)
    assert features.traced().out_info.shape == (64, 16)


def test_of_published_weights_only_shapes_count(config):
    config.model.name, config.model.weights = "resnet_tiny", "path:not_read.safetensors"
    config.optimizer.undo_norm_gain = True
    config.model.head.kind, config.model.variant = "linear", ""
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    model = nnx.eval_shape(lambda: models.create(config, 10, load_weights=False))
    freezing = freeze.create_freezing(config, model, 100_000, 100.0)
    assert freezing.remark == ""
    assert freezing.stages[0].frozen_norms == frozenset()  # they are not taken for folded
    assert freeze.norm_gains(model, frozenset(freeze.norms(model))) == {}


def test_mistakes_are_told_before_anything_is_compiled(config, tmp_path):
    quiet = {"console": Console(quiet=True), "out": tmp_path / "plan"}
    for topology, options, told in (
        ("v5e:32x32", {"images": 640, "classes": 10}, "the nearest is v5e:16x16"),
        ("v5e:4x4", {}, "without the data, plan needs images=N classes=N"),
        ("v5e:4x4", {"images": 640}, "plan needs classes=N"),
        ("v5e:4x4", {"images": 640, "classes": 1}, "classes=1 is not possible"),
        ("v5e:16x16", {"images": 640, "classes": 10}, "v5e:16x16: config.loader.batch_size=64 does not divide among 256 devices; use 256"),
        ("v5e:4x4", {"images": 640, "classes": 10, "fields": {"mesh.fsdp": 3}}, "do not divide 16 devices"),
        ("v5e:4x4", {"images": 640, "classes": 10, "batch_per_chip": 0}, "batch_per_chip=0 is no batch"),
        ("v5e:4x4", {"images": 640, "classes": 10, "programs": ["trian"]}, "did you mean 'train'"),
    ):
        with pytest.raises(UserError) as refused:
            imgclf.plan(config, topology, **quiet, **options)
        assert told in str(refused.value)
    assert not (tmp_path / "plan").exists()


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:2x2", "h100:8"])
def test_without_a_compiler_a_plan_tells_what_programs_say_of_themselves(config, topology, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "_COMPILERS", {"tpu": (), "gpu": ()})
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    planned = imgclf.plan(config, topology, images=640, classes=10, out=tmp_path / "plan", console=Console(quiet=True))
    (one,) = planned.results["topologies"]
    assert one["fits"] is None
    step = one["programs"][0]
    assert step["convolutions"]["count"] > 0 == step["convolutions"]["f32"]
    assert step["donated"] == step["donatable"]
    assert "not compiled" in planned.page.read_text(encoding="utf-8")


def test_classes_that_are_given_beside_data_with_others_are_told(color_folder):
    asked = asked_for(f"folder:{color_folder}", ())
    told = _sizes(asked, None, 7)
    assert (told.classes, told.train) == (7, 53)
    assert "but for the classes, which are as given: the data have 3" in told.source
    assert "but for" not in _sizes(asked, None, 3).source


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'imgclf[plan-tpu]'")
def test_libtpu_compiles_a_small_model_and_a_second_plan_is_there_at_once(config, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    options = {"images": 640, "classes": 10, "out": tmp_path / "plan", "console": Console(quiet=True)}
    planned = imgclf.plan(config, "v5e:2x2", **options)
    (one,) = planned.results["topologies"]
    assert one["fits"]
    step, evaluation = one["programs"]
    assert step["convolutions"]["count"] >= 5
    assert step["convolutions"]["f32"] == 0
    assert step["donated"] == step["donatable"]
    assert step["collectives"]["bytes"] > 0 == evaluation["collectives"]["crossing_slices_bytes"]
    assert one["summary"]["images_per_second_per_chip"] > 0

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("it is compiled again")

    monkeypatch.setattr(subprocess, "Popen", refused)
    assert imgclf.plan(config, "v5e:2x2", **options).results == planned.results


@pytest.mark.slow
def test_a_process_that_fails_is_told_in_a_sentence(tmp_path):
    request = child.Request("{}", "v5e:2x2", True, ("no such program",), 10, 640, str(tmp_path), "")
    with pytest.raises(UserError, match=r"^Compiling for v5e:2x2 failed with exit code 1 \(.+\); try another topology"):
        list(compiling.answers(request))
