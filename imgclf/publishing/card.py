"""The model card of a run: README.md of its repository on the Hugging Face hub, and of a bundle.

A card says what the model was made of, how good it is and how sure that is, and just as plainly what nobody has measured. Its head is
metadata that the hub reads (https://huggingface.co/docs/hub/model-cards), its body Markdown. All of it comes from the run's own files: what
those don't say, the card doesn't either.
"""

import dataclasses
import importlib.metadata
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from packaging import licenses

from imgclf import config as config_lib
from imgclf import files, formatting
from imgclf.config import Config
from imgclf.errors import UserError, nearest
from imgclf.evaluation import metrics, open_set
from imgclf.models import registry
from imgclf.models.weights.conversion import Weights
from imgclf.openimages import attribution
from imgclf.publishing import markdown

# Licences that the hub knows by this name (https://huggingface.co/docs/hub/repositories-licenses); of others it shows `license_name`.
_HUB_LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "mit")
_UNSTATED = "unstated"
# What a card can't do without, of each file of a run that it reads.
_FIELDS: dict[str, tuple[str, ...]] = {
    "results.json": ("top1", "loss", "ece", "n", "per_class"),
    "audit.json": (),
    "robustness.json": ("corruptions", "mean_top1", "mean_top1_ci95", "n"),
    "environment.json": (),
}
_AUDIT = ("counts", "exact_duplicates", "near_duplicates", "compared")  # where it was not off


@dataclasses.dataclass(frozen=True)
class _Run:
    """What the files of a run say; a saved model has fewer of them."""

    folder: Path
    config: Config
    results: Mapping[str, Any]
    audit: Mapping[str, Any] | None
    robustness: Mapping[str, Any] | None
    environment: Mapping[str, Any]
    table: pd.DataFrame | None
    weights: Weights | None  # the published ones that training started from; None = none, or a file of the user's own
    address: str
    licence: str

    @property
    def name(self) -> str:
        return self.config.name or self.folder.resolve().name

    @property
    def data_name(self) -> str:
        """What the data are called, without the folders that only this machine knows."""
        data = self.config.data
        if data.source == "tfds":
            return data.tfds.name
        return Path(data.path).name or data.source


def write(run: str | os.PathLike[str], *, address: str = "hf://USER/NAME", licence: str = "") -> str:
    """Writes the model card of a finished run, or of a saved model, as text; no network is needed.

        Path("README.md").write_text(imgclf.publishing.card.write("runs/photos"))

    Args:
      run: the folder.
      address: what `imgclf.load` will be given by those who use the model.
      licence: of the trained model: an SPDX identifier such as "cc-by-4.0", or LicenseRef-NAME for another; "" = that of the published
        weights it was trained from, where there are any.

    Raises:
      UserError: if the folder is not a finished run, or is damaged; for a licence that there isn't.
    """
    check_licence(licence)
    found = _read(files.path_of(run, "the folder of a run"), address, licence)
    sections = (_title, _use, _intended, _data, _metrics, _classes, _calibration, _robustness, _unmeasured, _making, _licences)
    return markdown.card(_metadata(found), *(section(found) for section in sections))


def attribution_of(run: str | os.PathLike[str]) -> Path | None:
    """Returns the table of the photos' authors and licences that Open Images came with; None where the run's data have none."""
    config = config_lib.from_json((Path(run) / "config.json").read_text(encoding="utf-8"))
    place = Path(config.data.path)
    near = (place, place.parent) if config.data.path else ()
    return next((folder / attribution.FILE for folder in near if (folder / attribution.FILE).is_file()), None)


def check_licence(licence: str) -> None:
    """Raises a UserError for a licence that nobody would recognise, such as a misspelt one: what a card says of it counts.

    Known are the SPDX identifiers and expressions (https://spdx.org/licenses), and the licences of published weights.
    """
    of_weights = {entry.licence for entry in registry.weights().values()}
    if not licence or licence in of_weights:
        return
    try:
        licenses.canonicalize_license_expression(licence)
    except licenses.InvalidLicenseExpression as error:
        similar = nearest(licence.lower(), of_weights.union(_HUB_LICENCES) - {""})
        raise UserError(f"{licence!r} is no licence that SPDX knows; {similar} For one of your own write LicenseRef-NAME.") from error


def _read(folder: Path, address: str, licence: str) -> _Run:
    if not (folder / "results.json").is_file():
        raise UserError(f"{folder} is not a finished run (it has no results.json): name the folder of a finished run, or of a saved model.")
    try:
        config = config_lib.from_json((folder / "config.json").read_text(encoding="utf-8"))
        results, audit, robustness, environment = (_json(folder / name, fields) for name, fields in _FIELDS.items())
        table = pd.read_parquet(folder / "dataset.parquet") if (folder / "dataset.parquet").exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is damaged ({type(error).__name__}: {error}): restore the run from a copy, or train again.") from error
    weights = None if ":" in config.model.name else registry.weights(config.model.name).get(config.model.weights)
    stated = licence or (weights.licence if weights else "")
    return _Run(folder, config, results or {}, audit, robustness, environment or {}, table, weights, address, stated)


def _json(path: Path, fields: Sequence[str]) -> dict[str, Any] | None:
    """What a file of the run says; None where there is none. Raises a ValueError for one that can't be what imgclf has written."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    wanted = _AUDIT if path.name == "audit.json" and found.get("mode") != "off" else fields
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"{path.name} lacks {', '.join(missing)}")
    return found


# ---- metadata ----


def _metadata(run: _Run) -> ModelCardData:
    licence, name = hub_licence(run.licence)
    own = run.weights is None or run.licence != run.weights.licence
    hub = run.weights.repo if run.weights is not None else ""
    return ModelCardData(
        license=licence,
        license_name=name,
        license_link=None if name is None or own or run.weights is None else run.weights.source,
        library_name="imgclf",
        pipeline_tag="image-classification",
        tags=["image-classification", "imgclf", "jax", run.config.model.name.rsplit(":", 1)[-1]],
        base_model=hub or None,
        metrics=["accuracy", "f1"],
        model_name=run.name,
        eval_results=_evaluated(run),
    )


def hub_licence(licence: str) -> tuple[str, str | None]:
    """What the hub's metadata say of a licence, "" = none is stated: `license`, and `license_name` where the hub has no name for it."""
    if licence.lower() in _HUB_LICENCES:
        return licence.lower(), None
    return "other", _slug(licence.removeprefix("LicenseRef-")) or _UNSTATED


def _evaluated(run: _Run) -> list[EvalResult]:
    """The figures of the headline's images, as the hub's `model-index` has them."""
    results = run.results
    figures = [
        ("accuracy", "top-1 accuracy", results["top1"], results.get("top1_ci95")),
        ("accuracy", "balanced accuracy", results.get("balanced_accuracy"), results.get("balanced_accuracy_ci95")),
        ("f1", "macro F1", results.get("macro_f1"), None),
        ("expected_calibration_error", "expected calibration error", results.get("ece"), None),
    ]
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=_slug(run.data_name) or "images",
            dataset_name=run.data_name,
            dataset_split=results.get("split"),
            metric_type=kind,
            metric_name=name,
            metric_value=round(float(value), 6),
            metric_args={"interval95": [round(float(bound), 6) for bound in bounds]} if bounds else None,
        )
        for kind, name, value, bounds in figures
        if value is not None
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


# ---- sections ----


def _title(run: _Run) -> str:
    names = run.results.get("class_names") or list(run.results["per_class"])
    started = f", trained from `{run.weights.name}`" if run.weights is not None else ""
    version = importlib.metadata.version("imgclf")
    return (
        f"# {markdown.text(run.name)}\n\n{markdown.classes(names)} It is a `{run.config.model.name}`{started}, made with "
        f"imgclf {version}.\n\n**{metrics.headline(run.results)}.**"
    )


def _use(run: _Run) -> str:
    code = f'import imgclf\n\nclassifier = imgclf.load("{run.address}")\nprint(classifier.predict("photo.jpg"))'
    return f"## How to use it\n\n```python\n{code}\n```\n\nPreprocessing, calibration and class names come with the model."


def _intended(run: _Run) -> str:
    signs = ["a low probability", *["a conformal set of several classes"] * bool(run.results.get("conformal"))]
    signs += ["the p-value of none of these classes"] * (run.folder / open_set.FILE).exists()
    return markdown.section(
        "Intended use",
        "Photos like those that it was trained on, with one of the classes above in each. Every photo gets one of these classes, whatever "
        f"it shows; what tells of doubt: {', '.join(signs)}.",
        "It is not made for decisions about people, nor for any in which an error does harm, unless somebody has tested it for just that.",
    )


def _data(run: _Run) -> str:
    lines = [f"Data set: `{markdown.code(run.data_name)}` (source `{markdown.code(run.config.data.source)}`)."]
    if run.table is not None:
        lines.append(_split_table(run.table))
        if "original_class" in run.table and (changed := int((run.table["original_class"] != run.table["class_name"]).sum())):
            lines.append(f"{formatting.count(changed, 'label')} of the source were corrected before training.")
    lines += ["\n".join(f"- {markdown.text(note)}" for note in run.results.get("notes", ())), _audited(run)]
    return markdown.section("Data", *lines)


def _split_table(table: pd.DataFrame) -> str:
    if "class_name" not in table:  # of a saved model, which keeps no names
        return markdown.table(["split", "images"], [[str(split), f"{n:,}"] for split, n in table["split"].value_counts().items()])
    counts = pd.crosstab(table["class_name"], table["split"])
    splits = [split for split in ("train", "val", "test") if split in counts]
    numbers = counts[splits].to_numpy()
    rows = [["all", *(f"{n:,}" for n in numbers.sum(0).tolist())]]
    rows += [[markdown.text(name), *(f"{n:,}" for n in of.tolist())] for name, of in zip(counts.index, numbers, strict=True)]
    return markdown.table(["class", *splits], rows)


def _audited(run: _Run) -> str:
    audit = run.audit
    if audit is None:
        return "The audit of the splits is not kept with this model."
    if audit.get("mode") == "off":
        return "The splits were **not** audited for copies (`data.audit` was off)."
    counts = audit["counts"]
    found = [
        f"{formatting.count(audit['exact_duplicates']['across'], 'exact copy', 'exact copies')} and "
        f"{formatting.count(audit['near_duplicates']['across'], 'near copy', 'near copies')} across splits",
        formatting.count(counts["label_conflicts"], "conflict of labels", "conflicts of labels"),
        f"{formatting.count(counts['dropped'], 'image')} left out of training for it",
    ]
    scenes = audit.get("scenes")
    searched = "" if scenes is None else f" Shots of one scene were looked for: {scenes['scenes']:,} scenes of several shots."
    return f"Audit of the splits, {audit['compared']:,} images compared: {', '.join(found)}.{searched}"


def _metrics(run: _Run) -> str:
    results = run.results
    rows = [["top-1 accuracy", formatting.percent(results["top1"]), markdown.interval(results.get("top1_ci95"))]]
    if "balanced_accuracy" in results:
        bounds = markdown.interval(results["balanced_accuracy_ci95"])
        rows.append(["balanced accuracy", formatting.percent(results["balanced_accuracy"]), bounds])
    rows.append(["macro F1", formatting.percent(results.get("macro_f1")), formatting.NONE])
    if len(results["per_class"]) > 5:
        rows.append(["top-5 accuracy", formatting.percent(results["top5"]), formatting.NONE])
    if results.get("roc_auc") is not None:
        rows.append(["ROC AUC, one against the rest", f"{results['roc_auc']:.4f}", formatting.NONE])
    rows.append(["loss (negative log-likelihood)", formatting.number(results["loss"]), formatting.NONE])
    return markdown.section(
        "Metrics",
        f"On {formatting.count(results['n'], 'image')} of {_split(run)}.",
        markdown.table(["metric", "value", "95 % interval"], rows),
    )


def _split(run: _Run) -> str:
    split = run.results.get("split", "")
    return "cross-validation" if split == "cross_validation" else f"the {split} split"


def _classes(run: _Run) -> str:
    rows = [
        [markdown.text(name), f"{row['support']:,}", *(formatting.percent(row[key]) for key in ("precision", "recall", "f1"))]
        for name, row in run.results["per_class"].items()
    ]
    return markdown.section("Each class", markdown.table(["class", "images", "precision", "recall", "F1"], rows))


def _calibration(run: _Run) -> str:
    results = run.results
    lines = [
        f"Expected calibration error {formatting.percent(results['ece'])} (15 bins), at temperature {results.get('temperature', 1.0):.3g}."
    ]
    if about := results.get("calibration"):
        lines.append(f"{about['note']} Without it: {formatting.percent(about['ece_uncalibrated'])}.")
    if rule := results.get("conformal"):
        covered = (
            "not measured"
            if rule["coverage"] is None
            else f"{formatting.percent(rule['coverage'])} ({markdown.interval(rule['coverage_ci95'])})"
        )
        size = "" if rule["mean_size"] is None else f", {formatting.number(rule['mean_size'])} classes on average"
        lines.append(f"Conformal sets for alpha {rule['alpha']:g}: coverage {covered}{size}. {rule['promise']}")
    return markdown.section("Calibration", *lines)


def _robustness(run: _Run) -> str:
    found = run.robustness
    if found is None:
        return ""
    rows = [[name, formatting.percent(row["top1"]), formatting.percent(row["drop"])] for name, row in found["corruptions"].items()]
    mean = f"{formatting.percent(found['mean_top1'])} ({markdown.interval(found['mean_top1_ci95'])})"
    return markdown.section(
        "Robustness",
        f"Top-1 accuracy on {formatting.count(found['n'], 'image')} with synthetic corruptions (the means over severities); the mean over "
        f"all is {mean}.",
        markdown.table(["corruption", "top-1", "drop"], rows),
    )


def _unmeasured(run: _Run) -> str:
    results = run.results
    gaps: list[tuple[bool, str]] = [
        (results.get("split") != "test", f"accuracy on a test split: the figures are of {_split(run)}"),
        (run.robustness is None, "accuracy on blurred, noisy, dark or compressed photos (`imgclf robustness` would)"),
        (not (results.get("calibration") or {}).get("split"), "whether probabilities are calibrated: no temperature was fitted"),
        (run.audit is None or "scenes" not in run.audit, "whether training and evaluation share shots of one scene"),
        (True, "accuracy on photos of another origin than the data above: other cameras, places, seasons or photographers"),
        (True, "whether the accuracy differs between groups of people, regions or makers that the labels do not name"),
        (True, "what pictures made to deceive it do"),
    ]
    return markdown.section("Not measured", "\n".join(f"- {gap}" for missing, gap in gaps if missing))


def _making(run: _Run) -> str:
    results, packages = run.results, run.environment.get("packages", {})
    lines = [f"- method: `{results.get('method', 'fit')}`, seed {run.config.seed}, {formatting.count(results.get('steps', 0), 'step')}"]
    if "train_seconds" in results:
        work = f", {formatting.flops(results['train_flops'])}" if results.get("train_flops") else ""
        lines.append(
            f"- training: {formatting.duration(results['train_seconds'])}{work} on {', '.join(run.environment.get('devices', ()))}"
        )
    if "params_total" in results:
        lines.append(f"- parameters: {results['params_total']:,}; `params_sha256` `{results['params_sha256']}`")
    size = "×".join(map(str, run.config.data.image_size))
    lines.append(f"- input: RGB, {size} pixels (height, width), by `{run.config.data.resize}`")
    if packages:
        lines.append("- software: " + ", ".join(f"{name} {version}" for name, version in packages.items()))
    return markdown.section("How it was made", "\n".join(lines), "`config.json` holds every setting.")


def _licences(run: _Run) -> str:
    lines = [f"The trained model: {run.licence or 'no licence is stated; ask its author'}."]
    if run.weights is not None:
        forbids = "" if run.weights.commercial else " It forbids commercial use."
        stated = run.weights.licence or "no licence stated"
        lines.append(f"It starts from `{run.weights.name}`: {stated} ({run.weights.source}).{forbids}")
    elif run.config.model.weights.startswith("path:"):
        lines.append("It starts from a file of weights whose licence imgclf does not know.")
    if (table := attribution_of(run.folder)) is None:
        lines.append("The licences of the photos are not among the run's files; no photo is part of the model.")
    else:
        summary = attribution.summary(attribution.read(table.parent))
        lines.append(f"No photo is part of the model. The authors of the photos it was trained on stand in `{attribution.FILE}`:")
        columns = [summary[name].tolist() for name in ("licence", "photos", "authors", "terms")]
        rows = [
            [markdown.text(name), f"{photos:,}", f"{authors:,}", str(terms)] for name, photos, authors, terms in zip(*columns, strict=True)
        ]
        lines.append(markdown.table(["licence", "photos", "authors", "what it asks for"], rows))
    return markdown.section("Licences and attribution", *lines)
