"""The gate: an export is finished when it says of real images what the classifier says, in a process without imgclf."""

from typing import Any

import numpy as np

from imgclf.errors import UserError
from imgclf.exports.exportable import Exportable, Options, Outputs
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
      `cold_start_s`, `ms_batch_1`, `ms_batch_16`.

    Raises:
      UserError: if they differ: it says by how much, at which number of images at a time, and on which image.
    """
    logits = wanted["logits"]
    spread = max(float(logits.max() - logits.min()), 1e-6)
    tolerance = TOLERANCE if options.precision == "float32" else ROUNDED
    worst, agreement = 0.0, 1.0
    for batch, outputs in sorted(answers.outputs.items()):
        for name, found in outputs.items():
            scale = spread if name == "logits" else max(float(np.abs(wanted[name]).max()), 1e-6)
            differences = np.abs(found - wanted[name]).reshape(len(pictures), -1).max(axis=1) / scale
            share = float(np.nan_to_num(differences, nan=np.inf).max())
            if name == "logits":
                worst = max(worst, share)
                agreement = min(agreement, float((found.argmax(1) == logits.argmax(1)).mean()))
            if not share <= (tolerance if options.precision != "int8" else np.inf) or found.shape != wanted[name].shape:
                row = int(np.nan_to_num(differences, nan=np.inf).argmax())
                raise UserError(
                    f"The export does not say what the classifier says, and was not kept: with {batch} images at a time, its {name} of "
                    f"{pictures[row].id} differ by {share:.1e} of their spread, where at most {tolerance:.0e} may be rounding."
                )
    return {
        "images": len(pictures),
        "batches": list(answers.outputs),
        "max_difference": float(f"{worst:.2e}"),
        "top1_agreement": agreement,
        "cold_start_s": round(answers.cold_start_s, 2),
        **{f"ms_batch_{batch}": round(ms, 2) for batch, ms in answers.ms.items()},
    }
