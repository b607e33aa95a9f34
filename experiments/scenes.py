"""Is the estimate honest where photos come in bursts? Bursts are planted, looked for, and the estimates set beside new photos.

    python experiments/scenes.py [DATA] --weights FILE [--weights FILE …] [--draws 20] [--photos 133] [--shots 1 2 5] [--folds 5 10 20]
    python experiments/scenes.py DATA --weights FILE --probe logistic    # the probe and the estimate that create makes; slower
    python experiments/scenes.py DATA --weights FILE --none              # how many scenes are found where none were planted

From DATA, a folder of class folders (default: ../shared/data/clothing10; splits that it comes with are joined), each draw takes some
photos, of which every one becomes a scene: `--shots` shots of it, each with a framing, perspective, rotation, light, colour, noise and JPEG
quality of its own. All other photos are the new ones of this draw: a shot of each. Names and times tell nothing. A probe on features of
each of the weights is trained on all shots of the draw and judged on its new photos: that is the truth. Three estimates of it come from
cross-validation: with shots dealt apart, with the scenes that were found kept whole, and with the planted ones kept whole, which is what
the best search could do.

Prints a line per case and number of folds: means over the draws in per cent, the bias of each estimate with its standard error over the
draws, in how many draws it is within 3 points, and how the scenes that were found agree with the planted ones, in pairs of shots
(precision, recall; shots of photos that DATA itself has twice count as wrong). A single draw's error is more than the bias: its few scenes
are luck.
"""

import argparse
import contextlib
import hashlib
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.console import Console

from imgclf import config as config_lib
from imgclf import models
from imgclf.data.prepare import load_path
from imgclf.data.splits import subset
from imgclf.data.table import Dataset
from imgclf.methods import resolve
from imgclf.models.weights import files, pretrained
from imgclf.probes import scenes
from imgclf.probes.cross_validation import CrossValidation, Linear, Scaling, fit_linear
from imgclf.probes.features import extract
from imgclf.probes.folds import assign_folds
from imgclf.runtime import compilation_cache

SHARED = Path(__file__).resolve().parents[2] / "shared"
CHOOSING, PENALTY = 5, 1000.0  # folds that choose a penalty; the penalty where none is chosen
EDGE = 400  # px: longer side of a shot at most


class Variation(NamedTuple):
    """How much the shots of a scene differ: uniform draws up to these."""

    area: float  # the smallest share of the photo that a shot shows
    rotation: float  # degrees
    perspective: float  # by which corners move, as a share of the sides
    brightness: float
    colour: float  # of each channel
    noise: float  # grey levels
    quality: int  # of JPEG, the lowest
    blur: float  # px


VARIATIONS = {
    "mild": Variation(0.75, 4, 0.04, 0.12, 0.05, 5, 60, 0.6),
    "medium": Variation(0.55, 8, 0.08, 0.2, 0.08, 8, 45, 0.9),
    "strong": Variation(0.35, 12, 0.12, 0.3, 0.12, 12, 35, 1.2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=str(SHARED / "data" / "clothing10"))
    parser.add_argument("--weights", action="append", required=True)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--photos", type=int, default=133, help="of each draw, every one of which becomes a scene")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 5])
    parser.add_argument("--folds", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--variation", nargs="+", choices=sorted(VARIATIONS), default=["mild", "strong"])
    parser.add_argument("--probe", choices=sorted(PROBES), default="ridge")
    parser.add_argument("--none", action="store_true")
    args = parser.parse_args()
    compilation_cache.enable()
    data, _ = load_path(args.data)
    for weights in args.weights:
        if args.none:
            found = scenes.find(features_of(data, weights), labels_of(data), data.table["id"].tolist())
            print(f"{Path(args.data).name}, {Path(weights).name}: {found.sentence()}", flush=True)
            continue
        for variation in args.variation:
            material = plant(data, weights, variation, max(args.shots))
            for shots in args.shots:
                results = [judged(material, shots, draw, args) for draw in range(args.draws)]
                told(f"{Path(args.data).name}, {Path(weights).name}, {variation}, {shots} shots", results, args)


class Result(NamedTuple):
    """Of one draw: accuracies, and the agreement of scenes in pairs of shots."""

    new: float
    estimates: np.ndarray  # [3, F]: with shots apart, with the scenes found, with the planted ones; by the number of folds
    precision: float
    recall: float
    claimed: float  # share of the shots that are said to be in a scene of several


class Material(NamedTuple):
    """Shots of all photos, with their features."""

    data: Dataset
    features: np.ndarray
    scene: np.ndarray  # int [n], of each shot
    number: np.ndarray  # int [n], within its scene


def plant(data: Dataset, weights: str, variation: str, shots: int) -> Material:
    """Makes the largest number of shots of each photo."""
    with tempfile.TemporaryDirectory() as folder:
        for row in range(len(data.table)):
            for number in range(shots):
                write_shot(data, row, Path(folder), VARIATIONS[variation], (0, row, number))
        planted = load_path(folder)[0]
        features = features_of(planted, weights)
    scene, number = (np.array(part, int) for part in zip(*(_of_name(name) for name in planted.table["id"]), strict=True))
    return Material(planted, features, scene, number)


def judged(material: Material, shots: int, draw: int, args: argparse.Namespace) -> Result:
    """The results of one draw of scenes, with the first few shots of each, and the first shot of each of the others."""
    photos = np.unique(material.scene)
    drawn = np.isin(material.scene, np.random.default_rng(draw).permutation(photos)[: args.photos])
    rows, new = np.flatnonzero(drawn & (material.number < shots)), np.flatnonzero(~drawn & (material.number == 0))
    part, features, scene = subset(material.data, rows), material.features[rows], material.scene[rows]
    labels, names = labels_of(part), part.class_names
    found = scenes.find(features, labels, part.table["id"].tolist())
    groups = np.array([name or image for name, image in zip(found.names, part.table["id"], strict=True)])
    probe = PROBES[args.probe](features, labels, groups, names)
    return Result(
        float(np.mean(probe.predicted(material.features[new]) == labels_of(material.data)[new])),
        np.array([[probe.estimate(given, folds, draw) for folds in args.folds] for given in (None, groups, scene.astype(str))]),
        *agreement(groups, scene),
        float(np.mean(found.names != "")),
    )


def write_shot(data: Dataset, row: int, folder: Path, variation: Variation, seed: tuple[int, int, int]) -> None:
    """Writes one shot of a photo, under a name that only this file understands."""
    rng = np.random.default_rng(seed)
    pixels = data.reader.read(row, (EDGE, EDGE))
    shown = shot(pixels, variation, rng)
    mixed = hashlib.sha256(repr(seed).encode()).hexdigest()[:8]
    target = folder / str(data.table["class_name"].iat[row]) / f"{mixed} {row}-{seed[2]}.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(variation.quality, 96))]
    cv2.imwrite(str(target), cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), quality)


def _of_name(name: str) -> tuple[int, int]:
    scene, number = Path(name).stem.split(" ")[1].split("-")
    return int(scene), int(number)


def shot(pixels: np.ndarray, variation: Variation, rng: np.random.Generator) -> np.ndarray:
    """Another shot of the scene on a photo, uint8 [h, w, 3]."""
    scale = min(1.0, EDGE / max(pixels.shape[:2]))
    pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = pixels.shape[:2]
    share = np.sqrt(rng.uniform(variation.area, 1))
    size = np.array([width * share, height * share])
    corner = rng.uniform(0, 1, 2) * (np.array([width, height]) - size)
    corners = corner + size * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    angle = np.deg2rad(rng.uniform(-1, 1) * variation.rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = (corners - corners.mean(0)) @ turn.T + corners.mean(0) + rng.uniform(-1, 1, (4, 2)) * variation.perspective * size
    view = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), view)
    shown = cv2.warpPerspective(pixels, matrix, (int(size[0]), int(size[1])), borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    shown = cv2.GaussianBlur(shown, (0, 0), rng.uniform(0.1, variation.blur))
    gain = (1 + rng.uniform(-1, 1) * variation.brightness) * (1 + rng.uniform(-1, 1, 3) * variation.colour)
    return np.clip(shown * gain + rng.normal(0, rng.uniform(0, variation.noise), shown.shape), 0, 255).astype(np.uint8)


def features_of(data: Dataset, weights: str) -> np.ndarray:
    """Pooled features of the backbone that these weights belong to, float32 [N, D]."""
    config = config_lib.default_config()
    config.data.path = str(data.table["source"].iat[0])
    config.model.name = pretrained.looks_like(files.shapes(Path(weights)))
    config.model.weights = f"path:{weights}"
    config.data.image_size = pretrained.find(config.model.weights, config.model.name).input_size or (224, 224)
    config = resolve.resolve(resolve.check(config), len(data.class_names))
    model = models.create(config, len(data.class_names), tell=lambda said: None)
    return np.array(extract(config, model, data, console=Console(quiet=True)))


def labels_of(data: Dataset) -> np.ndarray:
    return data.table["label"].to_numpy(np.int64)


class Ridge:
    """Ridge regression of one penalty, whose predictions without a fold follow from one decomposition of all examples, exactly.

    With the hat matrix H of the fit to all, the residuals of a fold F that was left out are (I − H_FF)⁻¹ · (y − H·y)_F.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, names: tuple[str, ...]):
        del groups  # there is no penalty to choose
        self._labels, self._names, self._scaling = labels, names, Scaling.of(features)
        self._x, self._y = self._scaled(features), np.eye(len(names))[labels]
        self._dual = np.linalg.inv(self._x @ self._x.T + PENALTY * np.eye(len(labels)))
        self._hat = 1 / len(labels) + self._x @ (self._x.T @ self._dual)

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return ((features - self._scaling.mean) / self._scaling.deviation).astype(np.float64)

    def predicted(self, features: np.ndarray) -> np.ndarray:
        """The labels of other features, int [n]."""
        kernel = self._x.T @ (self._dual @ (self._y - self._y.mean(0)))
        return (self._scaled(features) @ kernel + self._y.mean(0)).argmax(1)

    def estimate(self, groups: np.ndarray | None, folds: int, seed: int) -> float:
        """The accuracy in cross-validation that keeps groups whole."""
        fold = assign_folds(self._labels, groups, folds, seed, self._names, "draw more photos by --photos")
        residual, outputs = self._y - self._hat @ self._y, np.zeros_like(self._y)
        for k in np.unique(fold):
            at = np.flatnonzero(fold == k)
            outputs[at] = self._y[at] - np.linalg.solve(np.eye(len(at)) - self._hat[np.ix_(at, at)], residual[at])
        return float(np.mean(outputs.argmax(1) == self._labels))


class Logistic:
    """The probe that create trains, its penalty chosen by the folds of the estimate."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, names: tuple[str, ...]):
        self._features, self._labels, self._names = features, labels, names
        self._whole = self._fitted(groups, CHOOSING, 0)[0]

    def _fitted(self, groups: np.ndarray | None, folds: int, seed: int) -> tuple[Linear, CrossValidation]:
        validation = CrossValidation.create(self._labels, groups, self._names, (), folds, seed)
        return fit_linear(self._features, self._labels, validation, scaling="shrunk"), validation

    def predicted(self, features: np.ndarray) -> np.ndarray:
        """The labels of other features, int [n]."""
        return (features @ self._whole.kernel + self._whole.bias).argmax(1)

    def estimate(self, groups: np.ndarray | None, folds: int, seed: int) -> float:
        """The accuracy in cross-validation that keeps groups whole."""
        fitted, validation = self._fitted(groups, folds, seed)
        return float(np.mean(np.asarray(fitted.out_of_fold).argmax(1) == self._labels[validation.held_out]))


PROBES = {"ridge": Ridge, "logistic": Logistic}


def agreement(groups: np.ndarray, scene: np.ndarray) -> tuple[float, float]:
    """Precision and recall of the pairs of shots that stand in one scene; 1 where there is no pair."""
    own, truth = np.unique(groups, return_inverse=True)[1], np.unique(scene, return_inverse=True)[1]
    both, claimed, planted = (pairs(key) for key in (own * (truth.max() + 1) + truth, own, truth))
    return both / claimed if claimed else 1.0, both / planted if planted else 1.0


def pairs(key: np.ndarray) -> int:
    counts = np.unique(key, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def told(name: str, results: list[Result], args: argparse.Namespace) -> None:
    """Prints the lines of a case."""
    new = 100 * np.array([one.new for one in results])
    estimates = 100 * np.stack([one.estimates for one in results])
    precision, recall, claimed = np.mean([one[2:] for one in results], axis=0)
    found = f"precision {precision:.2f}, recall {recall:.2f}, {claimed:.0%} of the shots in a scene"
    print(f"{name}: new photos {new.mean():.1f} %, {len(new)} draws; {found}", flush=True)
    for number, folds in enumerate(args.folds):
        parts = []
        for kind, what in enumerate(("shots apart", "scenes found", "scenes planted")):
            errors = estimates[:, kind, number] - new
            error = np.std(errors, ddof=1) / np.sqrt(len(errors)) if len(errors) > 1 else np.nan
            parts.append(f"{what} {errors.mean():+.1f} ± {error:.1f} ({np.mean(np.abs(errors) <= 3):.0%} within 3)")
        print(f"  {folds:3d} folds: {'; '.join(parts)}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
