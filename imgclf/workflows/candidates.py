"""Ways to make a classifier, as changes of a config; and which of them `imgclf.create` tries within a time limit, and what each costs."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from imgclf import config as config_lib
from imgclf.config import Config
from imgclf.models import registry
from imgclf.models.weights import pretrained

# A step of training over the features of as many images, in time: an assumption from the backward pass, which is twice the forward one,
# with some room. The training that ran last corrects it.
STEP_OVER_FEATURES = 4.0
# An assumption, too: compiling the steps of a training, its evaluation and its average, over compiling a pass through the network, in time.
COMPILING_OVER_FEATURES = 8.0
VIEWS = {"plain": 1, "flip": 2, "framings": 4, "crops": 6}  # of each image, by `config.eval.views`
MOST_EPOCHS, FEWEST_EPOCHS = 15, 2
HELD_BACK = 0.2  # share of the images on which fine-tuning chooses its epoch, and is compared with the probe


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A change of a config: of what has been kept so far, or of what is usual.

    Attributes:
      name: of its folder and row.
      about: what it is, in a few words.
      fields: of the config that it sets.
      views: how many views of each image it computes features of that are not in the cache yet; where it leaves `eval.views` alone, this
        times those that are shown of each image.
      trains: whether the network is trained; then its duration is what the time left allows.
    """

    name: str
    about: str
    fields: Mapping[str, Any]
    views: float = 0.0
    trains: bool = False


def changed(config: Config, fields: Mapping[str, Any]) -> Config:
    """A copy of the config with these fields."""
    copy = config.copy_and_resolve_references()
    config_lib.override(copy, fields)
    return copy


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast things are here, in seconds, measured on what has run so far."""

    image: float  # features of one view
    run: float  # what a candidate takes beside features and training: folds, evaluation, report
    compiling: float  # until the first step of a training
    step_over_features: float = STEP_OVER_FEATURES

    def seconds(self, candidate: Candidate, images: int, shown: str = "plain") -> float:
        """What a candidate that doesn't train will take; `shown` is `config.eval.views` of what it changes."""
        views = candidate.views * (1 if "eval.views" in candidate.fields else VIEWS[shown])
        return self.run + views * images * self.image

    def epochs(self, images: int, left: float) -> int:
        """How many epochs of training, with an evaluation after each, there is time for."""
        trained = (1 - HELD_BACK) * self.step_over_features
        spare = left - self.run - self.compiling - images * self.image  # the probe's features, and the speed of the predictions
        return min(MOST_EPOCHS, math.floor(max(0.0, spare) / max(1e-9, images * self.image * (trained + HELD_BACK))))


def candidates(config: Config, fixed: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[Candidate]:
    """What is tried beside the first: the cheap before the dear, so that a short time is well spent.

    Args:
      config: of the first, which is always run.
      fixed: fields that the user has set, which nothing here changes.
      recipe: the fields of fine-tuning.

    Returns:
      None of them where the first is a training, whose duration is all there is to choose.
    """
    if config.train.method != "probe" or config.model.weights == "none":
        return []
    found = []
    if registry.family(config.model.name).new_head == "linear":
        found.append(Candidate("unit-length", "features of length 1", {"model.head.normalize": True}))
    own = pretrained.find(config.model.weights, config.model.name)
    for resize, about in (("squash", "all of each image, squashed to the network's input"), ("pad", "all of each image, with a margin")):
        if config.data.resize != resize:
            found.append(Candidate(resize, about, {"data.resize": resize, "data.interpolation": own.interpolation}, views=1))
    found.append(Candidate("flip", "the mean features of each image and its mirror image", {"eval.views": "flip"}, views=1))
    both = "the mean features of two framings of each image and their mirror images"
    found.append(Candidate("framings", both, {"eval.views": "framings"}, views=2))
    found.append(Candidate("crops", "the mean features of six crops and flips", {"eval.views": "crops"}, views=4))
    found += [_backbone(entry_name, config) for entry_name in _stronger(config)]
    tuned = {
        **recipe,
        "train.method": "lp_ft",
        "train.soup": 3,
        "freeze.batch_norm": "frozen",
        "data.split.fractions": (1 - HELD_BACK, HELD_BACK, 0.0),
        "eval.views": "plain",
    }
    found.append(Candidate("fine-tuning", "probe, then fine-tuning of everything, and the average of its best models", tuned, trains=True))
    decayed = tuned | {"optimizer.layer_decay": 0.8}
    found.append(Candidate("layer-decay", "the same with lower learning rates towards the input", decayed, trains=True))
    return [one for one in found if not _touches(one.fields, fixed)]


def _touches(fields: Mapping[str, Any], fixed: Mapping[str, Any]) -> bool:
    """Whether a candidate is about something that the user has decided."""
    about = {name for name in fields if not name.startswith(("augment.", "optimizer.", "train.", "data.split"))}
    decided = set(fixed) & (about | {"train.method"})
    return bool(decided & set(fields))


def _stronger(config: Config) -> list[str]:
    """The published weights on this machine with better fixed features than the config's, the best one only."""
    best = [entry.name for entry in registry.best_for_probe() if entry.commercial and pretrained.at_hand(entry)]
    better = best[: best.index(config.model.weights)] if config.model.weights in best else []
    return better[:1]


def _backbone(name: str, config: Config) -> Candidate:
    entry, own = registry.weights()[name], registry.weights().get(config.model.weights)
    dearer = (entry.gmacs or 1.0) / ((own.gmacs if own else None) or entry.gmacs or 1.0)
    fields = {"model.name": entry.model, "model.weights": name, "data.image_size": entry.input_size, "data.resize": "weights"}
    return Candidate(entry.model, f"another backbone that is on this machine, {name}", fields, views=max(1.0, dearer))
