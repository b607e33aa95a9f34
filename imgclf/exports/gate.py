"""The gate: an export is finished when it says of real images what the classifier says, in a process without imgclf."""

from typing import Any

import numpy as np

from imgclf.errors import UserError
from imgclf.exports.choices import Options
from imgclf.exports.exportable import Exportable, Outputs
from imgclf.exports.formats import Answers
from imgclf.exports.pictures import Picture

BATCHES = (1, 3, 16)  # images at a time: what is right for one number of images may be wrong for another
IMAGES = 16
TOLERANCE = 1e-4  # greatest difference of a logit, as a share of the logits' spread over all images
ROUNDED = 0.1  # the same of 16-bit floats and of 8-bit integers, beside the agreement of the answers
AGREEMENT = 0.97  # the least share of equal answers with 8-bit integers


def expected(exportable: Exportable, pictures: list[Picture]) -> Outputs:
    """What the classifier itself says of the pictures."""
    return exportable.run(np.stack([picture.shown for picture in pictures]))


def passed(answers: Answers, wanted: Outputs, pictures: list[Picture], options: Options) -> dict[str, Any]:
    """Compares what the export says with what the classifier says.

    Returns:
      For the export's table: `images`, `batches`, `max_difference` (of the logits, as a share of their spread), `top1_agreement`,
      `cold_start_s`, `ms_batch_1`, `ms_batch_16`. Where nothing was asked, images are 0 and all that was not measured is None.

    Raises:
      UserError: if they differ: it says by how much, at which number of images at a time, and on which image.
    """
    if not answers.outputs:
        return {"images": 0, "batches": [], "max_difference": None, "top1_agreement": None, "cold_start_s": None}
    worst, agreement = 0.0, 1.0
    for batch, outputs in sorted(answers.outputs.items()):
        for name, found in outputs.items():
            differences = _differences(found, wanted[name], name)
            if name == "logits":
                worst = max(worst, float(differences.max()))
                agreement = min(agreement, float((found.argmax(1) == wanted[name].argmax(1)).mean()))
            tolerance = TOLERANCE if options.precision == "float32" else ROUNDED
            if options.precision == "int8":  # how far the answers agree is another question, see `quantization`; here, that batches do
                differences = _differences(found, answers.outputs[BATCHES[0]][name], name)
            if not differences.max() <= tolerance:
                row = int(differences.argmax())
                raise UserError(
                    f"The export does not say what the classifier says, and was not kept: with {batch} images at a time, its {name} of "
                    f"{pictures[row].id} differ by {differences[row]:.1e} of their spread, where at most {tolerance:.0e} may be rounding."
                )
    return {
        "images": len(pictures),
        "batches": list(answers.outputs),
        "max_difference": float(f"{worst:.2e}"),
        "top1_agreement": agreement,
        "cold_start_s": None if answers.cold_start_s is None else round(answers.cold_start_s, 2),
        **{f"ms_batch_{batch}": round(ms, 2) for batch, ms in answers.ms.items()},
    }


def _differences(found: np.ndarray, wanted: np.ndarray, name: str) -> np.ndarray:
    """The greatest difference of each image, as a share of the spread, or of the greatest value; infinite where shapes differ."""
    if found.shape != wanted.shape:
        return np.full(len(wanted), np.inf)
    scale = float(wanted.max() - wanted.min()) if name == "logits" else float(np.abs(wanted).max())
    return np.nan_to_num(np.abs(found - wanted).max(axis=1), nan=np.inf) / max(scale, 1e-6)
