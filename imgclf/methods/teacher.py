"""Distillation: a finished run teaches another network, by what it thinks of each training image beside the label.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015 (https://arxiv.org/abs/1503.02531). The teacher sees every
image once, plain, as evaluation shows it; its probabilities are those of its calibrated temperature. They come from its features in the
cache, so that a teacher which has seen the images before costs next to nothing.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from imgclf import config as config_lib
from imgclf import models
from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.models.network import Network
from imgclf.probes.features import extract
from imgclf.probes.heads import head_logits
from imgclf.training.checkpoint import load_model
from imgclf.training.state import Tree, split_model


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A network that has been trained.

    Attributes:
      config: of its run, resolved.
      model: with its parameters and statistics.
      temperature: its logits are divided by it.
      params_sha256: of its parameters.
      share: of each label that it gives.
    """

    config: Config
    model: Network
    temperature: float
    params_sha256: str
    share: float

    @classmethod
    def of(cls, config: Config, class_names: tuple[str, ...]) -> "Teacher | None":
        """Loads the teacher that `config.train.teacher` names; None where it names none.

        Raises:
          UserError: if there is no such finished run, it has other classes, or its head needs more than pooled features.
        """
        if not config.train.teacher:
            return None
        field, folder = f"config.train.teacher={config.train.teacher!r}", Path(config.train.teacher).expanduser()
        try:
            results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            own = config_lib.from_json((folder / "config.json").read_text(encoding="utf-8"))
        except OSError:
            raise UserError(f"{field} is no finished run: name a run's folder, in which results.json and config.json lie.") from None
        if tuple(results["class_names"]) != tuple(class_names):
            raise UserError(f"{field} was trained on other classes ({', '.join(results['class_names'][:5])}, …); a teacher needs the same.")
        if own.model.head.kind not in ("linear", "norm"):
            raise UserError(
                f"{field} has model.head.kind={own.model.head.kind!r}; a teacher needs one on averaged features, 'linear' or 'norm'."
            )
        kept, _ = load_model(folder / results["checkpoint"])
        abstract = models.abstract(own, len(class_names))
        state = (nnx.State(jax.device_put(kept[part], may_alias=False)) for part in ("params", "batch_stats"))
        model = nnx.merge(nnx.graphdef(abstract), *state)
        return cls(own, model, results["temperature"], results["params_sha256"], config.train.teacher_share)

    def targets(self, dataset: Dataset, console: Console) -> np.ndarray:
        """The part of each label that the teacher gives: its share times its probabilities.

        Returns:
          float32 [N, C], by row of the data set's table; 0 for images that are not trained on.

        Raises:
          UserError: if an image can no longer be read.
        """
        rows = np.flatnonzero((dataset.table["split"] == "train").to_numpy())
        features = extract(self.config, self.model, dataset, rows=rows, console=console)
        _, params, batch_stats = split_model(self.model)
        logits = head_logits(self.model.head, params["head"], _of_head(batch_stats), features)
        targets = np.zeros((len(dataset.table), logits.shape[1]), np.float32)
        targets[rows] = self.share * np.asarray(jax.nn.softmax(logits / self.temperature))
        return targets


def _of_head(batch_stats: Tree) -> Tree:
    head: Tree = batch_stats.get("head", {})
    return head
