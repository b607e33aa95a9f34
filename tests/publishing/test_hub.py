"""Models on the Hugging Face hub: pushed, loaded, and what a stranger's repository can't do; against a server of its protocol."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from hub_server import READER, TOKEN
from huggingface_hub import ModelCard
from huggingface_hub import constants as hub_constants
from safetensors.numpy import save_file

import imgclf
from imgclf import UserError, models
from imgclf.config import default_config
from imgclf.deploy import exporting
from imgclf.deploy import hub as reading
from imgclf.deploy.classifier import Classifier
from imgclf.exports import folder as exported
from imgclf.exports.choices import Options
from imgclf.models.weights import pretrained
from imgclf.publishing import hub
from imgclf.training.state import split_model

ADDRESS = "hf://user/photos"


@pytest.fixture(scope="module")
def run(color_classifier, tmp_path_factory):
    """A saved model: a test may change what is in it."""
    return color_classifier[0].save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture(scope="module")
def pushed(color_classifier, tmp_path_factory):
    """The files of a repository, as a push leaves them."""
    folder = tmp_path_factory.mktemp("pushed")
    hub._collect(color_classifier[0], folder, reading.parse(ADDRESS), export="", licence="mit")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_marks(files):
    """The files with a list of hashes that is theirs: whoever changes a repository can change that, too."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != reading.MARK}
    return files | {reading.MARK: json.dumps({"schema": 1, "files": hashes}).encode()}


def changed(files, name, change):
    content = json.loads(files[name])
    change(content)
    return with_marks(files | {name: json.dumps(content).encode()})


def test_a_pushed_model_is_loaded_elsewhere_and_without_a_network(server, color_classifier, color_folder, monkeypatch):
    classifier, _ = color_classifier
    page = imgclf.push(classifier.folder, ADDRESS, private=True, licence="cc-by-4.0")
    assert page.startswith(f"{server.url}/user/photos/commit/")
    assert server.repos["user/photos"].private
    assert server.commits("user/photos") == 1
    files = server.files("user/photos")
    assert "report.html" not in files  # it shows training images
    assert not any(name.startswith("checkpoints") for name in files)
    assert str(color_folder.parent).encode() not in b"".join(files.values())
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "cc-by-4.0"
    assert f'imgclf.load("{ADDRESS}")' in card.text

    loaded = imgclf.load(ADDRESS)
    pictures = sorted((color_folder / "red").glob("*.png"))[:3]
    np.testing.assert_array_equal(loaded.predict_probabilities(pictures), classifier.predict_probabilities(pictures))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    asked = len(server.requests)
    assert imgclf.load(ADDRESS).class_names == classifier.class_names
    assert len(server.requests) == asked


@pytest.mark.slow
def test_an_export_goes_along_without_photos(server, color_classifier, color_folder, tmp_path):
    classifier, _ = color_classifier
    imgclf.push(classifier.folder, ADDRESS, export="onnx")
    for name, content in server.files("user/photos").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    place = tmp_path / "exports" / "onnx"
    assert exported.read(place).class_names == ("blue", "green", "red")
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg", ".npy")]
    photo = str(min((color_folder / "red").glob("*.png")))
    command = [sys.executable, "-I", str(place / "predict.py"), photo]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\t")
    assert said[1] == classifier.predict(photo)["predicted"][0]
    subprocess.run([sys.executable, "-I", str(place / "preprocess.py")], check=True)
    assert imgclf.load(ADDRESS).class_names == classifier.class_names


@pytest.fixture
def export(color_classifier, tmp_path):
    """A folder like that of an export to timm."""
    place = tmp_path / "timm"
    (place / "golden").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "timm_network.py", "golden/0.png"):
        (place / name).write_text(f"what {name} holds")
    about = exported.describe(exporting.exportable(color_classifier[0]), "timm", "model.safetensors", Options(), {})
    measured = {"megabytes": 1.0, "images": 16, "batches": [1], "max_difference": 1e-7, "top1_agreement": 1.0}
    exported.finish(place, about | {"table": measured})
    return place


def test_an_export_has_a_repository_of_its_own_as_timm_wants_it(server, run, export):
    imgclf.push(export, "hf://user/photos-timm", licence="mit")
    files = server.files("user/photos-timm")
    assert files["config.json"] == b"what config.json holds"
    assert files.keys() == {"README.md", "config.json", "export.json", "model.safetensors", "timm_network.py"}  # no photos
    card = ModelCard(files["README.md"].decode())
    assert (card.data.library_name, card.data.license) == ("timm", "mit")
    assert 'timm.create_model("hf-hub:user/photos-timm", pretrained=True)' in card.text
    with pytest.raises(UserError, match="is no model of imgclf"):
        imgclf.load("hf://user/photos-timm")
    with pytest.raises(UserError, match="holds other things than a model of imgclf"):
        imgclf.push(run, "hf://user/photos-timm")
    with pytest.raises(UserError, match="is an export itself"):
        imgclf.push(export, "hf://user/photos-timm", export="onnx")
    imgclf.push(run, "hf://user/photos-timm", overwrite=True)
    files = server.files("user/photos-timm")
    assert not {"export.json", "timm_network.py"} & files.keys()
    assert imgclf.load("hf://user/photos-timm").class_names == ("blue", "green", "red")


@pytest.mark.slow
def test_timm_loads_what_was_pushed(server, color_folder, tmp_path):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    config = default_config()
    config.model.name, config.data.image_size = "mobilenet_v2_050", (64, 64)
    config = pretrained.resolve(config, 3)
    _, params, batch_stats = split_model(models.create(config, 3))
    made = Classifier(config, ("blue", "green, or so", "röd"), params, batch_stats)
    found = made.export("timm", tmp_path / "timm", images=color_folder, verbose=False)
    imgclf.push(found.folder, "hf://user/photos-timm")
    model = timm.create_model("hf-hub:user/photos-timm", pretrained=True).eval()
    assert model.pretrained_cfg["label_names"] == list(made.class_names)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *found.size, 3), np.uint8)
    mean, std = np.array(found.about["mean"]), np.array(found.about["std"])
    with torch.inference_mode():
        logits = model(torch.from_numpy(((pixels / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)).numpy()
    wanted = exporting.exportable(made, color_folder).run(pixels)["logits"]
    assert np.abs(logits - wanted).max() < 1e-4 * np.ptp(wanted)


def test_a_second_push_sends_what_has_changed_and_removes_what_is_gone(server, run, monkeypatch):
    server.put("user/photos", with_marks({"leaderboard.json": b"{}", "exports/onnx/model.onnx": b"x", "notes.txt": b"kept"}))
    imgclf.push(run, ADDRESS)
    assert {"notes.txt", "model.safetensors"} <= server.files("user/photos").keys()
    assert not {"leaderboard.json", "exports/onnx/model.onnx"} & server.files("user/photos").keys()
    sent = [request for request in server.requests if request.startswith("PUT /lfs/")]
    assert len(sent) == len(set(sent)) > 0
    imgclf.push(run, f"{ADDRESS}@v2")
    assert [request for request in server.requests if request.startswith("PUT /lfs/")] == sent
    assert imgclf.load(f"{ADDRESS}@v2").class_names == ("blue", "green", "red")


def test_an_interrupted_push_leaves_the_repository_as_it_was(server, run):
    server.put("user/photos", with_marks({"results.json": b"{}"}))
    server.breaks = "/commit/"
    with pytest.raises(UserError, match="hf://user/photos can't be written"):
        imgclf.push(run, ADDRESS)
    assert server.files("user/photos").keys() == {"results.json", reading.MARK}
    sent = len([request for request in server.requests if request.startswith("PUT /lfs/")])
    server.breaks = ""
    imgclf.push(run, ADDRESS)  # continues: the large files are there
    assert len([request for request in server.requests if request.startswith("PUT /lfs/")]) == sent
    assert "model.safetensors" in server.files("user/photos")


def test_what_keeps_a_push_from_going_is_said_in_a_sentence(server, run, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="'hf://photos' names no repository"):
        imgclf.push(run, "hf://photos")
    server.put("user/other", {"config.json": b"{}"})
    with pytest.raises(UserError, match=r"hf://user/other holds other things .* such as config\.json"):
        imgclf.push(run, "hf://user/other")
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(UserError, match="hf://user/photos can't be written with this token"):
        imgclf.push(run, ADDRESS)
    monkeypatch.setenv("HF_TOKEN", "hf_forged")
    with pytest.raises(UserError, match="The hub does not know this token"):
        imgclf.push(run, ADDRESS)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="There is no token for the hub: set HF_TOKEN, or run hf auth login"):
        imgclf.push(run, ADDRESS)
    assert server.repos.keys() == {"user/other"}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError, match=r"hf://user/photos can't be written \(.*\): check the network, and HF_ENDPOINT"):
        imgclf.push(run, ADDRESS)


def test_what_keeps_a_model_from_being_loaded_is_said_in_a_sentence(server, pushed, monkeypatch):
    for address in ("hf://photos", "hf://user/../x", "hf://user/photos@a b", "hf://user/photos/more"):
        with pytest.raises(UserError, match="names no repository of the hub"):
            imgclf.load(address)
    with pytest.raises(UserError, match="hf://user/gone is not on the hub, or private"):
        imgclf.load("hf://user/gone")
    server.put("user/photos", pushed, private=True)
    with pytest.raises(UserError, match="hf://user/photos@v9 has no revision 'v9'"):
        imgclf.load("hf://user/photos@v9")
    monkeypatch.setenv("HF_TOKEN", "hf_forged")
    with pytest.raises(UserError, match="token"):
        imgclf.load(ADDRESS)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="is not on the hub, or private"):
        imgclf.load(ADDRESS)
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="is not on this machine, and the hub can't be reached"):
        imgclf.load(ADDRESS)
    server.put("user/other", {"config.json": b"{}"})
    monkeypatch.setattr(hub_constants, "ENDPOINT", server.url)
    with pytest.raises(UserError, match=r"hf://user/other is no model of imgclf \(it has no imgclf_files\.json\)"):
        imgclf.load("hf://user/other")


def test_a_changed_byte_is_named_also_in_the_cache(server, pushed):
    server.put("user/photos", pushed | {"model.safetensors": pushed["model.safetensors"][:-1] + b"\x00"})
    with pytest.raises(UserError, match=r"hf://user/photos is damaged: model\.safetensors is not what its imgclf_files\.json says"):
        imgclf.load(ADDRESS)
    server.put("user/photos", {name: content for name, content in pushed.items() if name != "model.safetensors"})
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        imgclf.load(ADDRESS)
    server.put("user/photos", pushed)
    folder = reading.fetch(ADDRESS)
    blob = (folder / "results.json").resolve()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"temperature", b"temperaturf"))
    with pytest.raises(UserError, match=r"results\.json is not what its imgclf_files\.json says; delete "):
        imgclf.load(ADDRESS)


@pytest.mark.parametrize("field", ["model.name", "optimizer.name", "data.source"])
def test_a_strangers_code_is_not_run(field, server, pushed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('this code has run')")
    group, name = field.split(".")
    files = changed(pushed | {"evil.py": b"raise SystemExit"}, "config.json", lambda config: config[group].update({name: "evil:build"}))
    server.put("user/photos", files)
    with pytest.raises(UserError, match=rf"names code of its author's own \(config\.{field}='evil:build'\), which imgclf does not run"):
        imgclf.load(ADDRESS)
    assert "evil" not in sys.modules
    assert not list((tmp_path / "hub").rglob("evil.py"))


def test_a_strangers_files_stay_in_the_cache(server, pushed, tmp_path):
    """Names that lead elsewhere, a pickle, a checkpoint of orbax, a link."""
    odd = {
        "../../../escaped.json": b"{}",
        "/etc/escaped": b"x",
        "model.pkl": b"\x80\x04.",
        "checkpoints/probe/_METADATA": b"{}",
        "a\\b": b"",
    }
    server.put("user/photos", with_marks(pushed | odd))
    assert imgclf.load(ADDRESS).class_names == ("blue", "green", "red")
    kept = {path.name for path in (tmp_path / "hub").rglob("snapshots/*/*")}
    assert kept <= {*reading.FILES, reading.MARK}
    assert not list(tmp_path.rglob("escaped*"))
    assert not Path("/etc/escaped").exists()
    for place in ("../../../../secret", "checkpoints/probe", "/etc/passwd"):
        server.put("user/photos", changed(pushed, "results.json", lambda results, place=place: results.update(checkpoint=place)))
        with pytest.raises(UserError, match="keeps its model in"):
            imgclf.load(ADDRESS)


def test_a_strangers_sizes_fill_no_memory(server, pushed, tmp_path):
    header = json.dumps({"params/w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    server.put("user/photos", with_marks(pushed | {"model.safetensors": len(header).to_bytes(8, "little") + header}))
    with pytest.raises(UserError, match=r"model\.safetensors can't be read"):
        imgclf.load(ADDRESS)
    server.put("user/photos", changed(pushed, "config.json", lambda config: config["data"].update(image_size=[10**6, 10**6])))
    with pytest.raises(UserError, match="from the hub, sides of up to 4096 are taken"):
        imgclf.load(ADDRESS)
    server.put("user/photos", changed(pushed, "results.json", lambda results: results.update(temperature="warm")))
    with pytest.raises(UserError, match=r"temperature or logit_offset in results\.json are no numbers"):
        imgclf.load(ADDRESS)
    save_file({"elsewhere/w": np.zeros(1, np.float32)}, tmp_path / "other.safetensors", {"imgclf": "{}"})
    server.put("user/photos", with_marks(pushed | {"model.safetensors": (tmp_path / "other.safetensors").read_bytes()}))
    with pytest.raises(UserError, match=r"model\.safetensors can't be read"):
        imgclf.load(ADDRESS)


def test_a_repository_that_was_downloaded_otherwise_is_loaded_as_a_folder(server, pushed, tmp_path):
    server.put("user/photos", pushed)
    folder = huggingface_hub.snapshot_download("user/photos", local_dir=tmp_path / "by hand")
    assert imgclf.load(folder).class_names == ("blue", "green", "red")
    shutil.rmtree(folder)
