"""The model card of a run: what the hub reads of it, and that it says what the run's files say, no more."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from imgclf import UserError
from imgclf.cli import commands
from imgclf.openimages import attribution
from imgclf.publishing import card


@pytest.fixture
def run(color_classifier, tmp_path):
    """A copy of the run's small files, which a test may change."""
    shutil.copytree(color_classifier[0].folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "samples", "*.html"))
    return tmp_path / "run"


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def loaded(text, tmp_path):
    (tmp_path / "README.md").write_text(text)
    return ModelCard.load(tmp_path / "README.md")


def test_the_hub_reads_what_the_run_measured(run, tmp_path):
    found = loaded(card.write(run, licence="CC-BY-4.0"), tmp_path).data
    results = json.loads((run / "results.json").read_text())
    assert (found.pipeline_tag, found.library_name, found.license) == ("image-classification", "imgclf", "cc-by-4.0")
    assert {"image-classification", "imgclf", "jax", "mobilenet_v2_tiny"} <= set(found.tags)
    accuracy, _, f1, error = found.eval_results
    assert (accuracy.metric_type, accuracy.dataset_name, accuracy.dataset_split) == ("accuracy", "image", "cross_validation")
    assert accuracy.metric_value == pytest.approx(results["top1"], abs=1e-6)
    assert accuracy.metric_args["interval95"] == pytest.approx(results["top1_ci95"], abs=1e-6)
    assert f1.metric_value == pytest.approx(results["macro_f1"], abs=1e-6)
    assert error.metric_value == pytest.approx(results["ece"], abs=1e-6)


def test_published_weights_bring_their_licence_and_their_name(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["model"] |= {"name": "convnextv2_nano", "weights": "timm/convnextv2_nano.fcmae_ft_in1k"}
    (run / "config.json").write_text(json.dumps(config))
    found = loaded(card.write(run), tmp_path)
    assert (found.data.license, found.data.base_model) == ("cc-by-nc-4.0", "timm/convnextv2_nano.fcmae_ft_in1k")
    assert "It forbids commercial use." in found.text
    config["model"] |= {"name": "vit_small_patch16_dinov3", "weights": "timm/vit_small_patch16_dinov3.lvd1689m"}
    (run / "config.json").write_text(json.dumps(config))
    found = loaded(card.write(run), tmp_path).data  # a licence that the hub has no name for
    assert (found.license, found.license_name) == ("other", "dinov3-license")
    assert found.license_link.startswith("https://ai.meta.com/")


def test_what_was_not_measured_is_said(run):
    text = card.write(run)
    assert "accuracy on a test split: the figures are of cross-validation" in text
    assert "accuracy on blurred, noisy, dark or compressed photos" in text
    assert "## Robustness" not in text
    curve = {"blur": {"top1": 0.5, "drop": 0.25, "severities": {}}}
    found = {"n": 60, "mean_top1": 0.5, "mean_top1_ci95": [0.4, 0.6], "corruptions": curve}
    (run / "robustness.json").write_text(json.dumps(found))
    change(run / "results.json", split="test")
    text = card.write(run)
    assert "| blur | 50.0\u00a0% | 25.0\u00a0% |" in text
    assert "accuracy on blurred" not in text
    assert "accuracy on a test split" not in text


def test_authors_and_licences_of_open_images_are_kept(run, tmp_path):
    data = tmp_path / "photos"
    data.mkdir()
    row = dict.fromkeys(attribution.COLUMNS, "") | {"author": "Ann", "licence": "CC BY 2.0", "landing_url": "https://example.org/1"}
    (data / attribution.FILE).write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    config = json.loads((run / "config.json").read_text())
    config["data"]["path"] = str(data / "crops.csv")
    (run / "config.json").write_text(json.dumps(config))
    assert card.attribution_of(run) == data / attribution.FILE
    text = card.write(run)
    assert "| CC BY 2.0 | 1 | 1 | name the author, link the licence, say what was changed |" in text
    assert str(tmp_path) not in text  # folders of this machine are nobody else's business


def test_a_class_name_is_shown_as_it_is_written(run):
    results = json.loads((run / "results.json").read_text())
    results["per_class"] = {"a|b <script>": results["per_class"]["red"]}
    (run / "results.json").write_text(json.dumps(results))
    assert "| a\\|b &lt;script&gt; | " in card.write(run)


def test_a_saved_model_has_a_card_too(color_classifier, tmp_path):
    folder = color_classifier[0].save(tmp_path / "saved")
    text = card.write(folder)
    assert "| train | 60 |" in text
    assert "The audit of the splits is not kept with this model." in text


def test_the_command_shows_the_card_or_writes_it(run, tmp_path):
    shown = CliRunner().invoke(commands.app, ["card", str(run), "--licence", "mit"], catch_exceptions=False).stdout
    assert shown == card.write(run, licence="mit")
    arguments = ["card", str(run), "--licence", "mit", "--out", str(tmp_path / "card.md")]
    assert CliRunner().invoke(commands.app, arguments).exit_code == 0
    assert (tmp_path / "card.md").read_text() == shown
    with pytest.raises(UserError, match="is there already: name another file, or give --overwrite"):
        CliRunner().invoke(commands.app, arguments, catch_exceptions=False)
    with pytest.raises(UserError, match="is a folder"):
        CliRunner().invoke(commands.app, [*arguments[:-1], str(tmp_path)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("results.json", "{}", "results.json lacks top1, loss, ece, n, per_class"),
        ("results.json", "[]", "results.json holds no object"),
        ("audit.json", "[]", "audit.json holds no object"),
        ("audit.json", "{}", "audit.json lacks counts"),
        ("robustness.json", "{}", "robustness.json lacks corruptions"),
    ],
)
def test_a_damaged_file_is_named_with_what_it_lacks(run, name, content, told):
    (run / name).write_text(content)
    with pytest.raises(UserError, match=f"is damaged .*{told}"):
        card.write(run)


def test_a_licence_that_nobody_knows_is_refused_with_the_nearest(run, tmp_path):
    with pytest.raises(UserError, match=r"'cc-by-4' is no licence that SPDX knows; did you mean 'cc-by-4\.0'"):
        card.write(run, licence="cc-by-4")
    assert loaded(card.write(run, licence="LicenseRef-Photos-Only"), tmp_path).data.license_name == "photos-only"
    assert loaded(card.write(run, licence="GPL-3.0-or-later"), tmp_path).data.license_name == "gpl-3.0-or-later"


def test_only_finished_runs_have_a_card(tmp_path):
    with pytest.raises(UserError, match="not a finished run"):
        card.write(tmp_path)
