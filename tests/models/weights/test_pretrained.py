"""Weights by name and by file: what is loaded, what is said, and what goes wrong. The hub is a server in this process."""

import dataclasses
import hashlib
import http.server
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import jax
import loopback
import numpy as np
import pytest
from flax import nnx
from huggingface_hub import constants as hub_constants
from networks import created
from safetensors.numpy import save_file

from imgclf import models
from imgclf.config import Config, default_config
from imgclf.errors import UserError
from imgclf.models import registry
from imgclf.models.weights import conversion, files, pretrained
from imgclf.models.weights.conversion import Weights

NAME = "timm/resnet_tiny.test"


def config_of(weights: str, name: str = "resnet_tiny") -> Config:
    config = default_config()
    config.model.name, config.model.weights, config.data.image_size = name, weights, (32, 32)
    config.data.mean = config.data.std = ()
    return config


def torch_tensors(classes: int = 5) -> dict[str, np.ndarray]:
    """A state dict of resnet_tiny with torchvision's names and random values."""
    rng, tensors = np.random.default_rng(0), {}

    def add(name: str, *shape: int) -> None:
        tensors[name] = rng.uniform(0.5, 1.0, shape).astype(np.float32)

    def norm(name: str, width: int) -> None:
        for variable in ("weight", "bias", "running_mean", "running_var"):
            add(f"{name}.{variable}", width)
        tensors[f"{name}.num_batches_tracked"] = np.array(3)

    add("conv1.weight", 8, 3, 7, 7)
    norm("bn1", 8)
    features = 8
    for stage in range(1, 5):
        planes, layer = 4 * 2**stage, f"layer{stage}.0"
        for i, (out, into, kernel) in enumerate(((planes, features, 1), (planes, planes, 3), (4 * planes, planes, 1)), start=1):
            add(f"{layer}.conv{i}.weight", out, into, kernel, kernel)
            norm(f"{layer}.bn{i}", out)
        add(f"{layer}.downsample.0.weight", 4 * planes, features, 1, 1)
        norm(f"{layer}.downsample.1", 4 * planes)
        features = 4 * planes
    add("fc.weight", classes, features)
    add("fc.bias", classes)
    return tensors


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(torch_tensors(), path)
    return path


@pytest.fixture(autouse=True)
def published(monkeypatch, tmp_path):
    """resnet_tiny has published weights; the caches are empty."""
    entry = Weights(NAME, "resnet_tiny", "timm", repo=NAME, num_classes=5, mean=(0.1, 0.2, 0.3), variant={"epsilon": 1e-4})
    family = registry.family("resnet_tiny")
    with_entry = dataclasses.replace(family, weights=(*family.weights, entry))
    for name in family.models:
        monkeypatch.setitem(registry._BY_MODEL, name, with_entry)
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "imgclf"))


def create(config: Config, classes: int) -> tuple[models.Network, list[str]]:
    told: list[str] = []
    return created(config, classes, tell=told.append), told


def leaves(model: nnx.Module) -> dict[str, np.ndarray]:
    _, state = nnx.split(model)
    return {path: np.asarray(leaf) for path, leaf in conversion.flatten(nnx.to_pure_dict(state)).items()}


def test_a_file_is_loaded_with_its_head(file):
    model, told = create(config_of(f"path:{file}"), 5)
    ours, given = leaves(model), torch_tensors()
    assert len(ours) == len([name for name in given if "tracked" not in name])
    np.testing.assert_array_equal(ours["backbone/stage2/0/conv2/kernel"], given["layer2.0.conv2.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(ours["backbone/stage4/0/downsample/bn/var"], given["layer4.0.downsample.1.running_var"])
    np.testing.assert_array_equal(ours["head/logits/kernel"], given["fc.weight"].T)
    assert told == []


def test_a_head_for_other_classes_is_new_and_said_to_be(file):
    model, told = create(config_of(f"path:{file}"), 3)
    again, _ = create(config_of(f"path:{file}"), 3)
    assert told == [f"path:{file}: the head is new (linear, 3 classes; that of 5 classes is left out)."]
    ours = leaves(model)
    assert ours["head/logits/kernel"].shape == (256, 3)
    assert ours["head/logits/kernel"].std() > 0
    np.testing.assert_array_equal(ours["head/logits/kernel"], leaves(again)["head/logits/kernel"])
    np.testing.assert_array_equal(ours["backbone/stem/bn/mean"], torch_tensors()["bn1.running_mean"])


def test_an_mlp_head_is_new_with_its_statistics(file):
    config = config_of(f"path:{file}")
    config.model.head.kind = "mlp"
    model, told = create(config, 5)
    assert "the head is new (mlp, 5 classes" in told[0]
    assert leaves(model)["head/bn0/var"].tolist() == [1.0] * 256
    assert jax.eval_shape(model, np.ones((2, 32, 32, 3), np.float32)).shape == (2, 5)


def test_a_file_without_a_head_gives_the_backbone(tmp_path):
    tensors = {name: value for name, value in torch_tensors().items() if not name.startswith("fc.")}
    save_file(tensors, tmp_path / "backbone.safetensors")
    _, told = create(config_of(f"path:{tmp_path}/backbone.safetensors"), 5)
    assert told == [f"path:{tmp_path}/backbone.safetensors: the head is new (linear, 5 classes; the file has none)."]


def test_half_a_head_is_an_error(tmp_path):
    tensors = torch_tensors()
    del tensors["fc.weight"]
    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match=r"1 of the model's tensors are missing \(head/logits/kernel"):
        create(config_of(f"path:{tmp_path}/half.safetensors"), 5)


def test_resolved_configs_need_no_weights(file, tmp_path):
    moved = shutil.copy(file, tmp_path / "moved.safetensors")
    config = pretrained.resolve(config_of(f"path:{moved}"), 5)
    assert (config.data.mean, config.data.std) == ((0.1, 0.2, 0.3), conversion.IMAGENET_STD)
    assert config.model.variant == "epsilon=0.0001"
    assert config.model.head.kind == "family"
    Path(moved).unlink()
    assert pretrained.resolve(config, 5).to_dict() == config.to_dict()
    model = created(config, 5, load_weights=False)
    assert model.backbone.stem.bn.epsilon == 1e-4
    with pytest.raises(UserError, match=r"moved\.safetensors can't be read"):
        created(config, 5)


def test_without_weights_normalisation_is_imagenets_and_the_head_linear():
    config = pretrained.resolve(config_of("none"), 5)
    assert (config.data.mean, config.data.std) == (conversion.IMAGENET_MEAN, conversion.IMAGENET_STD)
    assert (config.model.variant, config.model.head.kind) == ("", "linear")


def test_other_normalisation_than_the_weights_own_is_said(file):
    config = config_of(f"path:{file}")
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    _, told = create(config, 5)
    assert len(told) == 1
    assert "not the weights' own, (0.1, 0.2, 0.3)" in told[0]


def test_a_licence_that_forbids_commercial_use_is_said(file, monkeypatch):
    family = registry.family("resnet_tiny")
    (entry,) = family.weights[-1:]
    forbidding = dataclasses.replace(entry, licence="cc-by-nc-4.0", commercial=False, source="https://example.org")
    monkeypatch.setitem(registry._BY_MODEL, "resnet_tiny", dataclasses.replace(family, weights=(forbidding,)))
    monkeypatch.setattr(pretrained, "fetch", lambda entry: file)
    _, told = create(config_of(NAME), 5)
    assert told == [f"{NAME}: the licence, cc-by-nc-4.0, forbids commercial use (https://example.org)."]


def test_a_wrong_variant_is_the_users_mistake():
    config = config_of("none")
    config.model.variant = "paddding='same'"
    with pytest.raises(UserError, match=r"config\.model\.variant=.*paddding.*leave it at 'auto'"):
        create(config, 5)


@pytest.mark.parametrize(
    ("weights", "name", "told"),
    [
        ("timm/resnet50.a1_in", "resnet50", r"did you mean .*'timm/resnet50\.a1_in1k'"),
        ("timm/resnet50.a1_in1k", "resnet18", r"are of 'resnet50', not of 'resnet18'; set config\.model\.name='resnet50'"),
        ("timm/resnet50.a1_in1k", "resnet5", r"'resnet5' is not a model; did you mean 'resnet"),
        ("path:/nowhere/model.safetensors", "resnet50", r"/nowhere/model\.safetensors can't be read \(No such file"),
        ("path:/", "resnet50", r"can't be read \(Is a directory\)"),
        ("keras/resnet50", "resnet50", r"not on the Hugging Face hub: fetch https://storage.*, and put it at .*/keras/resnet50/.*\.h5; or"),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere(weights, name, told):
    with pytest.raises(UserError, match=told):
        create(config_of(weights, name), 5)


def squeezenet_tensors() -> dict[str, np.ndarray]:
    """The backbone of torchvision's squeezenet1_1."""
    tensors, features = {"features.0.weight": np.zeros((64, 3, 3, 3)), "features.0.bias": np.zeros(64)}, 64
    for place, squeeze in zip((3, 4, 6, 7, 9, 10, 11, 12), (16, 16, 32, 32, 48, 48, 64, 64), strict=True):
        expand = 4 * squeeze
        for name, out, into, kernel in (
            ("squeeze", squeeze, features, 1),
            ("expand1x1", expand, squeeze, 1),
            ("expand3x3", expand, squeeze, 3),
        ):
            tensors[f"features.{place}.{name}.weight"] = np.zeros((out, into, kernel, kernel))
            tensors[f"features.{place}.{name}.bias"] = np.zeros(out)
        features = 2 * expand
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def test_weights_of_another_model_are_recognised(tmp_path):
    file = tmp_path / "squeezenet.safetensors"
    save_file(squeezenet_tensors(), file)
    told = r"it looks like weights of 'squeezenet1_1': set config\.model\.name='squeezenet1_1'"
    with pytest.raises(UserError, match=r"holds none of the tensors of config\.model\.name='resnet_tiny'; " + told):
        create(config_of(f"path:{file}"), 5)
    with pytest.raises(UserError, match=r"does not fit config\.model\.name='squeezenet1_0': \d+ .*; " + told):
        create(config_of(f"path:{file}", "squeezenet1_0"), 5)
    save_file({"transformer.h.0.attn.weight": np.zeros((2, 2), np.float32)}, tmp_path / "text.safetensors")
    with pytest.raises(UserError, match="it looks like no weights that imgclf knows"):
        create(config_of(f"path:{tmp_path}/text.safetensors"), 5)


def test_pickles_are_refused_with_the_line_that_converts_them(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    for name in ("model.pth", "model.th", "disguised.weights"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(UserError, match=r'python -c "import torch.*weights_only=True.*\.safetensors') as error:
            create(config_of(f"path:{tmp_path / name}"), 5)
        code = str(error.value).split('python -c "')[1].rstrip('"')
        compile(code, "told", "exec")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.safetensors", b"", "damaged, cut short or no safetensors"),
        ("a.safetensors", b"\xff" * 64, "damaged, cut short or no safetensors"),
        ("a.safetensors", b"<!DOCTYPE html><html>", "damaged, cut short or no safetensors"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "damaged, cut short or not of Keras's making"),
        ("a.keras", b"PK\x03\x04" + b"\0" * 50, r"model\.save_weights"),
        ("a.txt", b"hello", "neither safetensors nor HDF5"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        create(config_of(f"path:{tmp_path / name}"), 5)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_file_cut_short_is_told(file, tmp_path, share):
    content = file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="cut short"):
        create(config_of(f"path:{tmp_path}/cut.safetensors"), 5)


def test_a_header_may_begin_with_any_byte(tmp_path):
    """The first byte of safetensors is part of a length, and may be that of a pickle."""
    for padding in range(256):
        path = tmp_path / "model.safetensors"
        save_file({"a": np.ones(1, np.float32)}, path, metadata={"padding": "x" * padding})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert files.shapes(path) == {"a": (1,)}


# The hub


class Hub(http.server.BaseHTTPRequestHandler):
    """Speaks as much of the hub's protocol as a download needs: /REPO/resolve/main/FILE with its commit, size and sha256."""

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub: HubServer = self.server
        hub.requests.append(f"{self.command} {self.path}")
        if self.path != f"/{NAME}/resolve/main/model.safetensors":
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0123456789" * 4)
        self.send_header("ETag", f'"{hashlib.sha256(hub.genuine).hexdigest()}"')
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(hub.genuine).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(hub.genuine)))
        self.send_header("Content-Length", str(len(hub.sent if body else hub.genuine)))
        self.end_headers()
        if body:
            self.wfile.write(hub.sent)

    def log_message(self, *arguments) -> None:
        """Not into the test's output."""


class HubServer(http.server.ThreadingHTTPServer):
    """`sent` is what is answered, `genuine` what is promised."""

    def __init__(self, content: bytes):
        self.genuine = self.sent = content
        super().__init__(("127.0.0.1", 0), Hub)
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def hub(file, monkeypatch, tmp_path):
    with loopback.running(HubServer(file.read_bytes())) as server:
        loopback.use_hub(server.url, tmp_path / "hub", monkeypatch)
        yield server


def test_weights_come_from_the_hub_once(hub, monkeypatch):
    download = f"GET /{NAME}/resolve/main/model.safetensors"
    model, told = create(config_of(NAME), 5)
    np.testing.assert_array_equal(leaves(model)["head/logits/bias"], torch_tensors()["fc.bias"])
    assert told == []
    assert hub.requests.count(download) == 1
    create(config_of(NAME), 5)
    assert hub.requests.count(download) == 1
    asked = len(hub.requests)
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    create(config_of(NAME), 5)
    assert len(hub.requests) == asked


def test_a_download_cut_short_is_told(hub):
    hub.sent = hub.genuine[:-1000]
    with pytest.raises(UserError, match=rf"{NAME} can't be fetched \(.*size.*\): fetch {hub.url}/{NAME}/resolve/main/model\.safetensors"):
        create(config_of(NAME), 5)


def test_a_tampered_download_fails_by_checksum(hub):
    hub.sent = hub.genuine[:-1] + bytes([hub.genuine[-1] ^ 1])
    for _ in range(2):  # also when it is cached
        with pytest.raises(
            UserError, match=r"damaged or tampered with: their sha256 is [0-9a-f]{64}, the hub says [0-9a-f]{64}; delete (\S+) "
        ) as error:
            create(config_of(NAME), 5)
    hub.sent = hub.genuine
    Path(str(error.value).split("delete ")[1].split(" to fetch")[0]).unlink()
    create(config_of(NAME), 5)


def test_a_damaged_cache_is_told(hub):
    path = pretrained.fetch(pretrained.find(NAME, "resnet_tiny"))
    blob = path.resolve()
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    with pytest.raises(UserError, match="damaged or tampered"):
        create(config_of(NAME), 5)


def test_an_unknown_file_on_the_hub_is_told(hub, monkeypatch):
    entry = Weights(NAME, "resnet_tiny", "timm", repo="timm/gone")
    with pytest.raises(UserError, match=rf"can't be fetched \(.*404.*\): fetch {hub.url}/timm/gone"):
        pretrained.fetch(entry)


def test_an_unreachable_hub_says_what_to_fetch_and_where_to_put_it(hub, file, monkeypatch, tmp_path):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"can't be fetched .*model\.safetensors where there is a network, and put it at ") as error:
        create(config_of(NAME), 5)
    assert hub.requests == []
    place = Path(str(error.value).split("put it at ")[1].removesuffix("; or give a file of your own as the weights, path:FILE."))
    assert place == tmp_path / "imgclf" / "weights" / NAME / "model.safetensors"
    place.parent.mkdir(parents=True)
    shutil.copy(file, place)
    _, told = create(config_of(NAME), 5)
    assert told == []


_SCRIPT = f"""
import sys
from imgclf.errors import UserError
from imgclf.models.weights import pretrained
from imgclf.models.weights.conversion import Weights
try:
    path = pretrained.fetch(Weights("{NAME}", "resnet_tiny", "timm", repo="{NAME}"))
    print("fetched", path.stat().st_size)
except UserError as error:
    print(error)
"""


def test_the_hubs_own_settings_hold(file, tmp_path):
    """HF_ENDPOINT and HF_HOME, from outside; then the same with the server gone, and with nothing cached."""

    def fetch(home: str, url: str) -> str:
        environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / home), "HF_HUB_OFFLINE": "0", "JAX_PLATFORMS": "cpu"}
        done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    with loopback.running(HubServer(file.read_bytes())) as server:
        assert fetch("home", server.url) == f"fetched {file.stat().st_size}\n"
    assert fetch("home", server.url) == f"fetched {file.stat().st_size}\n"
    told = fetch("other", server.url)
    assert f"fetch {server.url}/{NAME}/resolve/main/model.safetensors where there is a network, and put it at {tmp_path}" in told
    assert "Traceback" not in told


# Keras's HDF5, in both layouts, as small as they get


def keras_layers() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        "conv": {"kernel": rng.normal(size=(3, 3, 3, 4))},
        "bn": {name: rng.normal(size=4) for name in ("gamma", "beta", "moving_mean", "moving_variance")},
        "dw": {"depthwise_kernel": rng.normal(size=(3, 3, 4, 1))},
        "predictions": {"kernel": rng.normal(size=(4, 2)), "bias": rng.normal(size=2)},
    }


def expected_tensors() -> dict[str, tuple[int, ...]]:
    return {f"{layer}/{name}": value.shape for layer, variables in keras_layers().items() for name, value in variables.items()}


def test_legacy_hdf5(tmp_path):
    with h5py.File(tmp_path / "legacy.h5", "w") as root:
        root.attrs["layer_names"] = [*(name.encode() for name in keras_layers()), b"relu"]
        for layer, variables in keras_layers().items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in variables]
            for name, value in variables.items():
                group[f"{layer}/{name}:0"] = value
        root.create_group("relu").attrs["weight_names"] = []
    assert files.shapes(tmp_path / "legacy.h5") == expected_tensors()
    np.testing.assert_array_equal(files.read(tmp_path / "legacy.h5")["bn/beta"], keras_layers()["bn"]["beta"])


def test_a_whole_model_saved_by_keras_3_as_hdf5(tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as file:
        layers = [{"class_name": "DepthwiseConv2D", "config": {"name": "dw"}}, {"class_name": "Conv2D", "config": {"name": "conv"}}]
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": {"layers": layers}})
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = list(keras_layers())
        for layer, variables in keras_layers().items():
            names = [f"{layer}/{name.removeprefix('depthwise_')}" for name in variables]
            root.create_group(layer).attrs["weight_names"] = names
            for name, value in zip(names, variables.values(), strict=True):
                root[layer][name] = value
    assert files.shapes(tmp_path / "model.h5") == expected_tensors()


@pytest.mark.parametrize("named", [True, False])
def test_weights_h5(tmp_path, named):
    classes = {"conv": "conv2d_12", "bn": "batch_normalization", "dw": "depthwise_conv2d_1", "predictions": "dense"}
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        for layer, variables in keras_layers().items():
            group = file.create_group(f"layers/{classes[layer]}/vars")
            if named:
                group.attrs["name"] = layer
            for i, value in enumerate(variables.values()):
                group[str(i)] = value
    if named:
        assert files.shapes(tmp_path / "model.weights.h5") == expected_tensors()
    else:
        with pytest.raises(UserError, match="load and save it again"):
            files.shapes(tmp_path / "model.weights.h5")


def test_a_file_without_path_before_it_is_told_how_to_be_given(tmp_path):
    file = tmp_path / "mine.h5"
    with pytest.raises(UserError, match=r"are no known weights; valid: |are no known weights; did you mean"):
        pretrained.find(str(file), "mobilenet_v2")
    file.touch()
    with pytest.raises(UserError, match=rf"are no known weights; those of a file are path:{re.escape(str(file))}\."):
        pretrained.find(str(file), "mobilenet_v2")
