"""Why an image is answered as it is: what the network looked at, and the training images that are most like it."""

import base64
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from imgclf.data import images
from imgclf.data.augment import Preprocessing
from imgclf.deploy.predictor import Predictor
from imgclf.errors import UserError
from imgclf.evaluation.open_set import references
from imgclf.explanation import cam, neighbours, overlay
from imgclf.explanation.explained import Explained
from imgclf.reporting import pages

NEIGHBOURS = 6
_EDGE = 160  # of a training picture's thumbnail, pixels


class _Reference(NamedTuple):
    """A training image that the run has kept the features of."""

    id: str
    class_name: str
    source: str  # the folder that the id is relative to, on the machine that trained
    sha256: str


class Explainer:
    """Explains the answers of a run's network; called in one thread at a time."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._model = Explained.of(predictor.config, len(predictor.class_names), predictor.params, predictor.batch_stats)
        self._preprocessing = Preprocessing.of(predictor.config)
        self._decoding = images.Decoding.of(predictor.config.data)
        self._references = _references_of(predictor)
        try:
            cam.need_places(self._model)
            self.looks = True
        except UserError:  # its last maps have one place
            self.looks = False

    def warm(self) -> None:
        """Compiles what an explanation computes."""
        self._explained(np.full((8, 8, 3), 128, np.uint8), "")

    def explain(self, data: bytes, class_name: str = "") -> dict[str, Any]:
        """An `Explanation` as a dict, without the name.

        Args:
          data: of an image file.
          class_name: which class is explained; "" = the predicted one.

        Raises:
          images.ImageError: if it can't be read.
        """
        return self._explained(images.decode(data, decoding=self._decoding), class_name)

    def _explained(self, pixels: np.ndarray, class_name: str) -> dict[str, Any]:
        names = self._predictor.class_names
        view = self._preprocessing.plain(pixels)
        features, _ = self._model.features_and_logits(self._preprocessing.shown(pixels)[None])
        if class_name:
            label = names.index(class_name)
        else:
            label = int(self._predictor.answers_of_views(self._preprocessing.shown(pixels)[None]).probabilities[0].argmax())
        heat = None
        if self.looks:
            contributions = cam.maps(self._model, view[None], np.array([label]))[0]
            layer = overlay.layer(contributions, (view.shape[0], view.shape[1]))
            heat = "data:image/png;base64," + base64.b64encode(overlay.png(layer)).decode()
        return {
            "class": names[label],
            "view": "data:image/webp;base64," + pages.thumbnail(view, max(view.shape[:2])),
            "heat": heat,
            "neighbours": self._neighbours(features),
        }

    def _neighbours(self, features: np.ndarray) -> list[dict[str, Any]] | None:
        kept = self._predictor.open_set
        if kept is None or not self._references:
            return None
        found = neighbours.nearest(kept.features, features, NEIGHBOURS)
        rows = [self._references[row] for row in found.rows[0]]
        return [
            {"id": row.id, "class": row.class_name, "similarity": round(float(similarity), 4), "picture": self._picture(row)}
            for row, similarity in zip(rows, found.similarity[0], strict=True)
        ]

    def _picture(self, row: _Reference) -> str | None:
        """A thumbnail; None where this machine doesn't have the image, or has another one in its place."""
        path = Path(os.path.join(row.source, row.id))
        try:
            data = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(data).hexdigest() != row.sha256:
                return None
            return "data:image/webp;base64," + pages.thumbnail(images.decode(data, decoding=self._decoding), _EDGE)
        except (OSError, ValueError, images.ImageError):  # ValueError: a NUL in the path
            return None


def _references_of(predictor: Predictor) -> list[_Reference]:
    """What is known of the training images whose features the run has kept, in their order; none of a saved model, which has no names."""
    kept, table = predictor.open_set, predictor.folder / "dataset.parquet" if predictor.folder else None
    if kept is None or table is None or not table.exists():
        return []
    rows = pd.read_parquet(table)
    if "id" not in rows:
        return []
    rows = rows[rows["split"] == "train"]
    rows = rows.iloc[references(rows["id"].to_numpy(), len(kept.features))]
    if len(rows) != len(kept.features):
        return []
    return [_Reference(*map(str, row)) for row in rows[["id", "class_name", "source", "sha256"]].itertuples(index=False)]
