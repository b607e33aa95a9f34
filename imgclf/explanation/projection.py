"""A map of images in two dimensions, on which neighbours are images that the network finds alike."""

import numpy as np
from rich.console import Console

from imgclf import progress
from imgclf.explanation.neighbours import nearest

COMPONENTS = 50  # of the PCA before it, as t-SNE's authors do
PERPLEXITY = 30.0  # about how many neighbours each point has; fewer points have less
LEAST = 5  # points
KEPT = 10  # neighbours by which a map is judged
_BLOCK = 512
_FEW = 2000  # points that one thread lays out as fast as several, which wait for each other where other work keeps a core busy


def project(features: np.ndarray, *, seed: int = 0, console: Console | None = None) -> np.ndarray:
    """Lays features out in the plane by t-SNE (L. van der Maaten and G. Hinton, "Visualizing data using t-SNE", JMLR 9, 2008).

    They are divided by their lengths, so that the cosine counts, reduced to 50 components by PCA, and begin where the first two of these
    have them. Equal features, seed and machine give equal maps.

    Args:
      features: float32 [N, D], N of 5 or more.
      seed: of the solver.
      console: shows that it runs: t-SNE doesn't tell how far it is. 5,000 points take about a minute.

    Returns:
      float32 [N, 2], in the square from 0 to 1.

    Raises:
      ValueError: for fewer than 5 points.
    """
    if len(features) < LEAST:
        raise ValueError(f"{len(features)} points make no map")
    from sklearn.decomposition import PCA  # slow to import, and only a map needs it
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    with progress.bar(console or Console(quiet=True)) as bar:
        bar.add_task(f"t-SNE of {len(features):,} points", total=None)
        count = min(COMPONENTS, *unit.shape)
        reduced = PCA(count, random_state=seed, svd_solver="full" if unit.shape[1] <= 4096 else "auto").fit_transform(unit)
        solver = TSNE(2, perplexity=min(PERPLEXITY, (len(unit) - 1) / 3), init="pca", random_state=seed)
        with threadpool_limits(1 if len(unit) <= _FEW else None, "openmp"):
            points = solver.fit_transform(reduced.astype(np.float32))
    points = points - points.min(0)
    scaled: np.ndarray = (points / max(float(points.max()), 1e-12)).astype(np.float32)
    return scaled


def neighbours_kept(features: np.ndarray, points: np.ndarray, k: int = KEPT) -> float:
    """The share of the k nearest by the features that are among the k nearest on the map, in the mean over all points: 1 is a perfect map.

    Args:
      features: float32 [N, D].
      points: float32 [N, 2].
      k: neighbours, not counting the point itself; at most N − 1.
    """
    k = min(k, len(features) - 1)
    own = [np.array([row]) for row in range(len(features))]
    by_features = nearest(features, features, k, without=own).rows
    kept = 0
    for start in range(0, len(points), _BLOCK):
        distance = np.square(points[start : start + _BLOCK, None] - points[None]).sum(-1)
        distance[np.arange(len(distance)), np.arange(start, start + len(distance))] = np.inf
        on_map = np.argpartition(distance, k - 1, axis=1)[:, :k]
        kept += sum(len(np.intersect1d(a, b)) for a, b in zip(by_features[start : start + _BLOCK], on_map, strict=True))
    return kept / (k * len(features))
