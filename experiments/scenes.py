"""Is the estimate honest where photos come in bursts? Bursts are planted, looked for, and the estimates set beside new photos.

    python experiments/scenes.py [DATA] --weights FILE [--weights FILE …] [--seeds 5] [--photos 200] [--shots 1 2 5]
    python experiments/scenes.py DATA --weights FILE --none      # how many scenes are found where none were planted

From DATA, a folder of class folders (default: ../shared/data/clothing10; splits that it comes with are joined), photos are drawn of which
every one becomes a scene: `--shots` shots of it, each with a framing, perspective, rotation, light, colour, noise and JPEG quality of its
own. As many other photos are the new ones: a shot of each. Names and times tell nothing. Each seed draws two thirds of the scenes. A ridge
probe on features of each of the weights is trained on all their shots and judged on the new photos: that is the truth. Three estimates of
it come from 5 folds: with shots dealt apart, with the scenes that were found kept whole, and with the planted ones kept whole, which is
what the best search could do.

Prints a line per case: means over the seeds in per cent, and how the scenes that were found agree with the planted ones, in pairs of shots
(precision, recall; shots of photos that DATA itself has twice count as wrong).
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
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from imgclf import config as config_lib
from imgclf import models
from imgclf.data.prepare import load_path
from imgclf.data.splits import subset
from imgclf.data.table import Dataset
from imgclf.methods import resolve
from imgclf.models.weights import files, pretrained
from imgclf.probes import scenes
from imgclf.probes.cross_validation import assign_folds
from imgclf.probes.features import extract
from imgclf.runtime import compilation_cache

SHARED = Path(__file__).resolve().parents[2] / "shared"
FOLDS, PENALTY = 5, 1000.0
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
    "strong": Variation(0.35, 12, 0.12, 0.3, 0.12, 12, 35, 1.2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=str(SHARED / "data" / "clothing10"))
    parser.add_argument("--weights", action="append", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 5])
    parser.add_argument("--variation", nargs="+", choices=sorted(VARIATIONS), default=sorted(VARIATIONS))
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
            material = plant(data, weights, variation, args)
            for shots in args.shots:
                results = [judged(material, shots, seed) for seed in range(args.seeds)]
                print(told(f"{Path(weights).name}, {variation}, {shots} shots", results), flush=True)


class Result(NamedTuple):
    """Of one seed: accuracies, and the agreement of scenes in pairs of shots."""

    new: float
    apart: float
    found: float
    planted: float
    precision: float
    recall: float
    claimed: float  # share of the shots that are said to be in a scene of several


class Material(NamedTuple):
    """Planted shots and shots of new photos, with their features."""

    planted: Dataset
    features: np.ndarray
    scene: np.ndarray  # int [n], of each planted shot
    number: np.ndarray  # int [n], within its scene
    new: Dataset
    new_features: np.ndarray


def plant(data: Dataset, weights: str, variation: str, args: argparse.Namespace) -> Material:
    """Makes the largest number of shots of each scene, and a shot of each new photo."""
    rows = np.random.default_rng(0).permutation(len(data.table))
    with tempfile.TemporaryDirectory() as folder:
        for kind, chosen, shots in (
            ("planted", rows[: args.photos], max(args.shots)),
            ("new", rows[args.photos : 2 * args.photos], 1),
        ):
            for row in chosen.tolist():
                for number in range(shots):
                    write_shot(data, row, Path(folder) / kind, VARIATIONS[variation], (0, row, number))
        planted, new = (load_path(Path(folder) / kind)[0] for kind in ("planted", "new"))
        features, new_features = features_of(planted, weights), features_of(new, weights)
    scene, number = (np.array(part, int) for part in zip(*(_of_name(name) for name in planted.table["id"]), strict=True))
    return Material(planted, features, scene, number, new, new_features)


def judged(material: Material, shots: int, seed: int) -> Result:
    """The results of one draw of scenes, with the first few shots of each."""
    scenes_there = np.unique(material.scene)
    drawn = np.random.default_rng(seed).permutation(scenes_there)[: 2 * len(scenes_there) // 3]
    rows = np.flatnonzero((material.number < shots) & np.isin(material.scene, drawn))
    part, features, scene = subset(material.planted, rows), material.features[rows], material.scene[rows]
    found = scenes.find(features, labels_of(part), part.table["id"].tolist())
    groups = np.array([name or image for name, image in zip(found.names, part.table["id"], strict=True)])
    return Result(
        trained(features, part, material.new_features, material.new),
        *(estimate(features, part, given, seed) for given in (None, groups, scene.astype(str))),
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


def ridge() -> Pipeline:
    """The probe: quick enough for hundreds of fits."""
    return make_pipeline(StandardScaler(), RidgeClassifier(alpha=PENALTY))


def trained(features: np.ndarray, data: Dataset, new_features: np.ndarray, new: Dataset) -> float:
    """The accuracy on new photos of the probe that all shots train."""
    said = ridge().fit(features, data.table["class_name"].to_numpy(str)).predict(new_features)
    return float(np.mean(said == new.table["class_name"].to_numpy(str)))


def estimate(features: np.ndarray, data: Dataset, groups: np.ndarray | None, seed: int) -> float:
    """The accuracy in cross-validation."""
    labels = labels_of(data)
    fold = assign_folds(labels, groups, FOLDS, seed, data.class_names, "draw more photos by --photos")
    right = [ridge().fit(features[fold != k], labels[fold != k]).predict(features[fold == k]) == labels[fold == k] for k in range(FOLDS)]
    return float(np.mean(np.concatenate(right)))


def agreement(groups: np.ndarray, scene: np.ndarray) -> tuple[float, float]:
    """Precision and recall of the pairs of shots that stand in one scene; 1 where there is no pair."""
    own, truth = np.unique(groups, return_inverse=True)[1], np.unique(scene, return_inverse=True)[1]
    both, claimed, planted = (pairs(key) for key in (own * (truth.max() + 1) + truth, own, truth))
    return both / claimed if claimed else 1.0, both / planted if planted else 1.0


def pairs(key: np.ndarray) -> int:
    counts = np.unique(key, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def told(name: str, results: list[Result]) -> str:
    """A line of the table."""
    mean = Result(*np.mean(np.array(results), axis=0).tolist())
    estimates = []
    for what, field in (("shots apart", "apart"), ("scenes found", "found"), ("scenes planted", "planted")):
        errors = [100 * (getattr(one, field) - one.new) for one in results]
        each = ", ".join(f"{error:+.1f}" for error in errors)
        estimates.append(f"{what} {100 * getattr(mean, field):.1f} ({np.mean(errors):+.1f}, each {each})")
    return (
        f"{name}: new photos {100 * mean.new:.1f}; {'; '.join(estimates)}; precision {mean.precision:.2f}, recall {mean.recall:.2f}, "
        f"{mean.claimed:.0%} of the shots in a scene"
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
