"""The kept model of a finished run, run over the run's images once more by the very code that training scored it with."""

from pathlib import Path
from typing import Any

import jax
from flax import nnx
from rich.console import Console

from imgclf import models
from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.methods.probe import OUT_OF_FOLD
from imgclf.methods.refit import LogitsOfBoth
from imgclf.models.network import Network
from imgclf.probes.heads import FeatureLogits
from imgclf.training import sharding
from imgclf.training.checkpoint import load_model
from imgclf.training.evaluate import Evaluator
from imgclf.training.loop import ImageLogits
from imgclf.training.state import Tree, split_model
from imgclf.training.step import make_eval_step
from imgclf.training.trained_model import LogitsOf, OutOfFold, TrainedModel, TrainProgress


def kept_models(results: dict[str, Any]) -> list[str]:
    """The folders of a run's models that its score came from: the kept one, and of a refit the first training's, which val is asked of."""
    first = (results.get("refit") or {}).get("first")
    return [results["checkpoint"], *([first] if first else [])]


def trained(config: Config, dataset: Dataset, run: Path, results: dict[str, Any], console: Console) -> TrainedModel:
    """Returns what the run's training had returned.

    Args:
      config: the run's, with the images where they lie now.
      dataset: its images, with their splits.
      run: the folder with the kept models.
      results: the run's results.json.
      console: for the progress.
    """
    loaded = [load_model(run / folder) for folder in kept_models(results)]
    (model, about), *first = loaded
    kept = Path(results["checkpoint"]).name
    logits = [_logits_of(config, dataset, one["params"], one["batch_stats"], results["method"], console) for one, _ in loaded]
    progress = TrainProgress(
        best_value=results["best_value"], best_epoch=results["best_epoch"], kept=kept, seconds=results["train_seconds"],
        flops=results["train_flops"],
    )  # fmt: skip
    logits_of = LogitsOfBoth(logits[1], logits[0]) if first else logits[0]
    folds = OutOfFold.load(run / OUT_OF_FOLD) if results["method"] == "probe" else None
    return TrainedModel(model["params"], model["batch_stats"], about, progress, results["steps"], logits_of, folds)


def _logits_of(config: Config, dataset: Dataset, params: Tree, batch_stats: Tree, method: str, console: Console) -> LogitsOf:
    abstract: Network = models.abstract(config, len(dataset.class_names))
    if method == "probe":
        state = (nnx.State(jax.device_put(part, may_alias=False)) for part in (params, batch_stats))
        model = nnx.merge(nnx.graphdef(abstract), *state)
        return FeatureLogits(config, model, dataset, params, batch_stats)
    mesh = sharding.create_mesh()
    step = make_eval_step(config, split_model(abstract)[0], mesh)
    return ImageLogits(Evaluator(config, dataset, step, mesh), params, batch_stats, console)
