"""`imgclf.load("RUN").predict(paths_or_arrays)`: a run's kept model, with the preprocessing that it was evaluated with."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from flax import nnx
from ml_collections import ConfigDict

from imgclf import compilation_cache, models
from imgclf import config as config_lib
from imgclf.data import augment, images
from imgclf.errors import UserError
from imgclf.evaluation import metrics
from imgclf.training.checkpoint import load_model
from imgclf.training.state import Tree, make_apply_fn, split_model
from imgclf.training.step import normalize

Source = str | os.PathLike | np.ndarray


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained classifier: parameters, class names, and the config that says how an image becomes its input."""

    config: ConfigDict
    class_names: tuple[str, ...]
    params: Tree
    batch_stats: Tree

    def predict(self, sources: Source | Sequence[Source], *, top_k: int = 5, batch_size: int = 64) -> pd.DataFrame:
        """Classifies images.

        Args:
          sources: paths, or uint8 arrays [h, w, 3] (also [h, w]); one, or a sequence.
          top_k: how many classes to name per image.

        Returns:
          A table with a row per source, in their order: `id` (the path, or the array's position), `predicted`, `probability`, and
          `top1` … `topk` with their probabilities, as in a run's predictions.csv.

        Raises:
          UserError: for a path that is no readable image; it is named.
        """
        sources = [sources] if isinstance(sources, str | os.PathLike | np.ndarray) else list(sources)
        ids = [str(position) if isinstance(source, np.ndarray) else os.fspath(source) for position, source in enumerate(sources)]
        probabilities = self.predict_probabilities(sources, batch_size=batch_size)
        table = metrics.predictions(range(len(ids)), probabilities, None, self.class_names, top_k)
        return table.drop(columns="true").assign(id=ids)  # an image may be given twice

    def predict_probabilities(self, sources: Sequence[Source], *, batch_size: int = 64) -> np.ndarray:
        """Returns the probabilities, float32 [N, C], in the order of `sources` and of `class_names`."""
        outputs = [np.zeros((0, len(self.class_names)), np.float32)]
        for batch, count in self._batches(sources, batch_size):
            outputs.append(np.asarray(self._forward(self.params, self.batch_stats, batch))[:count])
        return np.concatenate(outputs)

    @functools.cached_property
    def _forward(self):
        abstract = nnx.eval_shape(lambda: models.create(self.config, len(self.class_names), load_weights=False))
        graphdef, _, _ = split_model(abstract)
        apply = make_apply_fn(graphdef)

        def forward(params: Tree, batch_stats: Tree, image: jax.Array) -> jax.Array:
            logits, _ = apply(params, batch_stats, normalize(image, self.config.data.mean, self.config.data.std))
            return jax.nn.softmax(logits)

        return jax.jit(forward)

    def _batches(self, sources: Sequence[Source], batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yields uint8 [B, H, W, 3] and the number of images in it; short batches are padded, so that one compilation serves all."""
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for start in range(0, len(sources), batch_size):
                chunk = list(pool.map(self._input, sources[start : start + batch_size]))
                batch = np.zeros((batch_size, *self.config.data.image_size, 3), np.uint8)
                batch[: len(chunk)] = chunk
                yield batch, len(chunk)

    def _input(self, source: Source) -> np.ndarray:
        data, size = self.config.data, self.config.data.image_size
        try:
            pixels = (
                images.pixels_of(source)
                if isinstance(source, np.ndarray)
                else images.decode(Path(source).read_bytes(), max_pixels=data.max_pixels)
            )
        except (images.ImageError, OSError) as error:
            name = "an array" if isinstance(source, np.ndarray) else os.fspath(source)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UserError(f"{name} can't be classified: {reason}. Leave it out, or convert it to JPEG or PNG.") from None
        return augment.view(pixels, size, data.resize, self.config.augment, crop_fraction=data.crop_fraction)


def load(run: str | os.PathLike) -> Predictor:
    """Loads the kept model of a finished run.

    Raises:
      UserError: if the folder is not a finished run, or its model is damaged.
    """
    folder = Path(run)
    if not (folder / "results.json").exists():
        raise UserError(f"{folder} is not a finished run (it has no results.json); train it with run.py --workdir={folder}.")
    compilation_cache.enable()
    config = config_lib.from_json((folder / "config.json").read_text())
    results = json.loads((folder / "results.json").read_text())
    model, about = load_model(folder / results["checkpoint"])
    return Predictor(config, tuple(about["class_names"]), model["params"], model["batch_stats"])
