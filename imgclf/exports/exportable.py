"""What an export is made of: a trained classifier with all that its predictions depend on, and pictures to check the export with."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from imgclf.config import Config
from imgclf.data.augment import Preprocessing
from imgclf.data.images import Decoding
from imgclf.evaluation.conformal import Conformal
from imgclf.evaluation.open_set import OpenSet
from imgclf.exports.pictures import Pictures
from imgclf.training.state import Tree, tree_sha256

Outputs = dict[str, np.ndarray]  # float32: "logits" [B,C] before offset and temperature, "probabilities" [B,C], "features" [B,D]


@dataclasses.dataclass(frozen=True)
class Exportable:
    """A trained classifier that is to leave imgclf.

    Attributes:
      name: of the run that it comes from.
      config: the run's, resolved.
      class_names: in the order of the logits.
      params, batch_stats: of the kept model, as numpy arrays in nested dicts.
      temperature, logit_offset, conformal, open_set: see `deploy.predictor.Predictor`.
      licence: of the published weights that it was trained from, None: it began with random weights, or a file.
      pictures: the run's images, as far as they can still be read, or others that the user has named.
      run: computes what the classifier itself says of pictures, uint8 [B,H,W,3], by JAX: what an export is compared with.
      sha256: of all that the classifier's predictions depend on.
    """

    name: str
    config: Config
    class_names: tuple[str, ...]
    params: Tree
    batch_stats: Tree
    temperature: float
    logit_offset: tuple[float, ...]
    conformal: Conformal | None
    open_set: OpenSet | None
    licence: dict[str, Any] | None
    pictures: Pictures
    run: Callable[[np.ndarray], Outputs]
    sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input."""
        height, width = self.config.data.image_size
        return height, width

    @functools.cached_property
    def params_sha256(self) -> str:
        """As the run's results.json has it."""
        return tree_sha256(self.params)

    @property
    def flips(self) -> bool:
        """Whether evaluation averages an image with its mirror image, which exports do inside of the graph."""
        return self.config.eval.views in ("flip", "crops")

    @property
    def note(self) -> str:
        """What the user should know of how the export differs from the classifier; "" where it doesn't."""
        notes = []
        if self.config.eval.views == "crops":
            notes.append("The run averages three framings of each image (eval.views='crops'); the export has one, with its mirror image.")
        if self.config.model.precision == "bf16":
            notes.append("The run rounds products to bfloat16 (model.precision='bf16'); the export computes in float32.")
        return " ".join(notes)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How an image file becomes the input, for `preprocess.py` and for the metadata of a model file."""
        shown, decoding = Preprocessing.of(self.config), Decoding.of(self.config.data)
        return {
            "size": list(shown.size),
            "resize": shown.resize,
            "crop_fraction": shown.crop_fraction,
            "interpolation": shown.interpolation,
            "mode": shown.mode,
            "fill": shown.fill,
            "fill_value": shown.fill_value,
            "color_profile": decoding.color_profile,
            "value_range": list(decoding.value_range) if decoding.value_range else None,
            "kinds": [list(kind) for kind in decoding.kinds],
        }
