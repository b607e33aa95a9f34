"""The README.md of an export in a repository of its own: what it is, how its library opens it, and what the gate has measured."""

import json
from typing import NamedTuple

from huggingface_hub import ModelCard, ModelCardData

from imgclf import formatting
from imgclf.deploy.hub import Repository
from imgclf.evaluation import metrics
from imgclf.exports.folder import Export
from imgclf.publishing import markdown
from imgclf.publishing.card import hub_licence


class _Use(NamedTuple):
    """The hub's name of the library, and the lines that open the export by it; `{name}` and `{revision}` are the repository's."""

    library: str
    code: str


_PROGRAM = (
    'import sys\n\nfrom huggingface_hub import snapshot_download\n\nsys.path.insert(0, snapshot_download("{name}"{revision}))\n'
    'from predict import Model\n\nmodel = Model()\nprint(model.class_names, model.probabilities(["photo.jpg"]))'
)
_USES = {
    "timm": _Use("timm", 'import timm\n\nmodel = timm.create_model("hf-hub:{address}", pretrained=True).eval()'),
    "keras": _Use(
        "keras",
        'import sys\n\nfrom huggingface_hub import snapshot_download\n\nfolder = snapshot_download("{name}"{revision})\n'
        "sys.path.insert(0, folder)\nfrom keras_network import build\n\nmodel = build(folder)  # of keras.applications; it answers logits",
    ),
    "onnx": _Use("onnx", _PROGRAM),
    "stablehlo": _Use("jax", _PROGRAM),
}


def write(export: Export, repository: Repository, licence: str) -> str:
    """Returns the card of an export, for a repository in which its files stand at the root."""
    about, stated = export.about, licence or (export.about["licence"] or {}).get("licence", "")
    licence_id, licence_name = hub_licence(stated)
    data = ModelCardData(
        license=licence_id,
        license_name=licence_name,
        library_name=_USES[export.format].library,
        pipeline_tag="image-classification",
        tags=["image-classification", "imgclf", about["model"].rsplit(":", 1)[-1]],
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(export, repository, stated)}\n", ignore_metadata_errors=False))


def _body(export: Export, repository: Repository, licence: str) -> str:
    names, about = export.class_names, export.about
    counted = formatting.count(len(names), "class", "classes")
    shown = ", ".join(map(markdown.text, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    revision = f', revision="{repository.revision}"' if repository.revision else ""
    address = f"{repository.name}@{repository.revision}" if repository.revision else repository.name
    code = _USES[export.format].code.replace("{address}", address).replace("{name}", repository.name).replace("{revision}", revision)
    fitted = export.logit_offset or export.temperature != 1
    calibrated = (
        f"Its answers are logits: add {list(export.logit_offset) or 0} and divide by the temperature {export.temperature:.4g} before the "
        "softmax, as `predict.py` does."
        if export.format in ("timm", "keras") and fitted
        else "Its answers are logits."
        if export.format in ("timm", "keras")
        else "Normalisation, calibration and softmax are inside of the model."
    )
    of = export.table
    columns = {"size, MB": "megabytes", "cold start, s": "cold_start_s", "1 image, ms": "ms_batch_1", "16 images, ms": "ms_batch_16"}
    measured = {name: of[key] for name, key in columns.items() if of.get(key) is not None}
    gate = (
        ""
        if not of["images"]
        else (
            f"Of {of['images']} images it says what the classifier says: logits differ by at most {of['max_difference']:.0e} of their "
            "spread."
        )
    )
    return "\n\n".join(
        filter(
            None,
            (
                f"# {markdown.text(about['run'])}, for {export.format}",
                f"Classifies photos into {counted}: {shown}. A `{about['model']}` in {export.precision}, exported by imgclf.",
                _headline(export),
                f"## How to use it\n\n```python\n{code}\n```\n\n{calibrated} Photos become its input by `preprocess.py`, which needs "
                "Pillow and NumPy.",
                f"## What was checked\n\n{gate}" if gate else "",
                markdown.table(list(measured), [[f"{value:,}" for value in measured.values()]]),
                about["note"],
                f"## Licence\n\n{licence or 'No licence is stated; ask its author.'}",
            ),
        )
    )


def _headline(export: Export) -> str:
    """The accuracy, where the export lies in its run."""
    results = export.folder.absolute().parent.parent / "results.json"
    if not results.is_file():
        return ""
    found = json.loads(results.read_text(encoding="utf-8"))
    return f"**{metrics.headline(found)}.**" if found.get("params_sha256") == export.params_sha256 else ""
