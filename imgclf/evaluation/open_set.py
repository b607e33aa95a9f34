"""Images of none of the classes: how unlike the training images an image is, as a p-value.

The score is the cosine distance of an image's features to the k-th nearest of the training images' (Sun et al., "Out-of-distribution
detection with deep nearest neighbors", ICML 2022); a training image's own score is that among the others, without its group. The p-value of
a new image is (1 + training images with a score as large) / (1 + training images): conformal prediction (Vovk et al., "Algorithmic learning
in a random world", 2005). Were the new image one of the references too, the scores of all would be exchangeable and the p-values exact;
leaving it out can only make the training images' scores larger. So, as long as the network was not trained on them, an image like the
training images has a p-value of at most alpha with a probability of at most alpha. A fine-tuned network has seen the training images, which
lie closer together in its features than new ones do: there the promise is none, and the share of false alarms is to be measured.
"""

import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from imgclf import files
from imgclf.config import Config
from imgclf.data.splits import groups_of
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.models.network import Network
from imgclf.probes.features import extract
from imgclf.training.state import split_model
from imgclf.training.trained_model import TrainedModel

FILE = "open_set.safetensors"  # in the run's folder
NEIGHBORS = 3  # as good as 1, 2, 5, 10 and 20 on clothes, film figures and CIFAR-10, each against photos of anything else
REFERENCES = 2000  # training images that `imgclf.create` keeps at most, in 16 bits: 5 MB at 1,280 features, 8 MB at 2,048
_ROWS = 1024  # images whose distances are in memory at once


@dataclasses.dataclass(frozen=True)
class OpenSet:
    """Training images to compare others with.

    Attributes:
      features: float16 [N, D], pooled features, each of length 1.
      scores: float32 [N], of these images among each other, ascending.
      neighbors: k.
      params_sha256: of the model that the features are of.
    """

    features: np.ndarray
    scores: np.ndarray
    neighbors: int
    params_sha256: str

    @classmethod
    def create(cls, features: np.ndarray, groups: np.ndarray, classes: int, params_sha256: str) -> "OpenSet":
        """Takes training images as references.

        Args:
          features: float32 [N, D], N of 2 or more; of at least two groups.
          groups: [N], names of what belongs together, such as copies of one picture: no image is compared with its own group.
          classes: C; where a class has few images, fewer neighbors count, so that these are of one's own class.
          params_sha256: of the model that they are of.
        """
        unit = _unit(features)
        number = np.unique(np.asarray(groups, str), return_inverse=True)[1]
        others = len(unit) - np.bincount(number).max()
        neighbors = int(np.clip(len(unit) // classes - 1, 1, min(NEIGHBORS, others)))
        scores = np.concatenate(
            [
                _kth_distance(unit[rows], unit, neighbors, number[rows, None] == number)
                for rows in (slice(start, start + _ROWS) for start in range(0, len(unit), _ROWS))
            ]
        )
        return cls(unit, np.sort(scores), neighbors, params_sha256)

    @property
    def smallest(self) -> float:
        """The smallest p-value that there is: nothing is flagged at a lower alpha."""
        return 1 / (1 + len(self.scores))

    def p_values(self, features: np.ndarray) -> np.ndarray:
        """Returns how likely so unlike an image is among images like the training images, float32 [N] in (0, 1], for float32 [N, D]."""
        unit = _unit(features)
        scores = np.concatenate(
            [np.zeros(0, np.float32)]
            + [_kth_distance(unit[start : start + _ROWS], self.features, self.neighbors) for start in range(0, len(unit), _ROWS)]
        )
        as_large = len(self.scores) - np.searchsorted(self.scores, scores, side="left")
        return ((1 + as_large) / (1 + len(self.scores))).astype(np.float32)

    @functools.cached_property
    def sha256(self) -> str:
        """Of all that a p-value depends on."""
        digest = hashlib.sha256(f"{self.neighbors} {self.features.shape}".encode())
        for part in (self.features, self.scores):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @property
    def about(self) -> dict[str, float]:
        """What results.json says of it."""
        return {"n": len(self.scores), "neighbors": self.neighbors, "smallest_p": self.smallest}

    @classmethod
    def load(cls, folder: Path, params_sha256: str) -> "OpenSet | None":
        """Reads the file of a run; None where there is none.

        Raises:
          UserError: if it is damaged, or of another model than the run's.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, "np") as opened:
                about = opened.metadata()
                found = cls(opened.get_tensor("features"), opened.get_tensor("scores"), int(about["neighbors"]), about["params_sha256"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); give the run's training command once more, which writes it anew.") from error
        if found.params_sha256 != params_sha256:
            raise UserError(f"{path} is of another model than the run's; give the run's training command once more, which writes it anew.")
        return found


def of_training(config: Config, model: Network, dataset: Dataset, trained: TrainedModel) -> OpenSet | None:
    """Takes the training images of a finished training as references; None where `config.eval.open_set` is 0, or there is one group only.

    Their features come from the cache, where a probe has put them, or are put there.

    Args:
      config: the whole config, resolved.
      model: the network; its parameters don't count.
      dataset: with its splits.
      trained: the kept model.
    """
    rows = np.flatnonzero((dataset.table["split"] == "train").to_numpy())
    rows = rows[references(dataset.table["id"].to_numpy()[rows], config.eval.open_set)]
    groups = groups_of(dataset.table)[rows]
    if len(set(groups)) < 2:
        return None
    graphdef, _, _ = split_model(model)
    kept = nnx.merge(graphdef, nnx.State(trained.params), nnx.State(trained.batch_stats))
    features = extract(config, kept, dataset, rows=rows)
    return OpenSet.create(features, groups, len(dataset.class_names), trained.about["params_sha256"])


def write(kept: OpenSet | None, folder: Path) -> None:
    """Writes the file of a run, or removes that of an earlier evaluation."""
    if kept is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    about = {"neighbors": str(kept.neighbors), "params_sha256": kept.params_sha256}
    with files.replacing(folder / FILE) as aside:
        save_file({"features": kept.features, "scores": kept.scores}, aside, about)


def references(ids: np.ndarray, most: int) -> np.ndarray:
    """Which of the training images are kept, int64 [n ≤ most] ascending: a sample by the hash of their names, whatever their order."""
    keys = [hashlib.sha256(str(name).encode("utf-8", "surrogateescape")).digest() for name in ids]
    return np.sort(np.array(sorted(range(len(ids)), key=keys.__getitem__)[:most], np.int64))


def _unit(features: np.ndarray) -> np.ndarray:
    """Features of length 1, float16 [N, D]: rounded for all alike, so that a training image that comes again is at distance 0."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(lengths, 1e-12)).astype(np.float16)


def _kth_distance(unit: np.ndarray, others: np.ndarray, k: int, own: np.ndarray | None = None) -> np.ndarray:
    """The cosine distance of each of [n, D] to the k-th nearest of [N, D], float32 [n]; `own`, bool [n, N], are left out."""
    distance = 1 - unit.astype(np.float32) @ others.astype(np.float32).T
    if own is not None:
        distance[own] = np.inf
    return np.partition(distance, k - 1, axis=1)[:, k - 1]
