"""The README.md of an export in a repository of its own: what it is, how its library opens it, and what the gate has measured."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from huggingface_hub import ModelCardData

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
# Columns of the card's table, and the keys of the export's.
_MEASURED = {"size, MB": "megabytes", "cold start, s": "cold_start_s", "1 image, ms": "ms_batch_1", "16 images, ms": "ms_batch_16"}


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
    table = export.table
    measured = {name: table[key] for name, key in _MEASURED.items() if table.get(key) is not None}
    return markdown.card(
        data,
        f"# {markdown.text(about['run'])}, for {export.format}",
        f"{markdown.classes(export.class_names)} A `{about['model']}` in {export.precision}, exported by imgclf.",
        _headline(export),
        markdown.section("How to use it", f"```python\n{_code(export, repository)}\n```", _answers(export)),
        markdown.section("What was checked", _gate(table)) if table["images"] else "",
        markdown.table(list(measured), [[f"{value:,}" for value in measured.values()]]),
        about["note"],
        markdown.section("Licence", stated or "No licence is stated; ask its author."),
    )


def _code(export: Export, repository: Repository) -> str:
    """The lines that open the export by its library."""
    revision = f', revision="{repository.revision}"' if repository.revision else ""
    address = f"{repository.name}@{repository.revision}" if repository.revision else repository.name
    return _USES[export.format].code.replace("{address}", address).replace("{name}", repository.name).replace("{revision}", revision)


def _answers(export: Export) -> str:
    """What it answers, and what it is given."""
    if export.format not in ("timm", "keras"):
        answers = "Normalisation, calibration and softmax are inside of the model."
    elif export.logit_offset or export.temperature != 1:
        answers = (
            f"Its answers are logits: add {list(export.logit_offset) or 0} and divide by the temperature {export.temperature:.4g} before "
            "the softmax, as `predict.py` does."
        )
    else:
        answers = "Its answers are logits."
    return f"{answers} Photos become its input by `preprocess.py`, which needs Pillow and NumPy."


def _gate(table: Mapping[str, Any]) -> str:
    difference = f"{table['max_difference']:.0e}"
    return f"Of {table['images']} images it says what the classifier says: logits differ by at most {difference} of their spread."


def _headline(export: Export) -> str:
    """The accuracy, where the export lies in its run."""
    results = export.folder.absolute().parent.parent / "results.json"
    if not results.is_file():
        return ""
    found = json.loads(results.read_text(encoding="utf-8"))
    return f"**{metrics.headline(found)}.**" if found.get("params_sha256") == export.params_sha256 else ""
