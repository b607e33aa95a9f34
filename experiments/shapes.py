"""Does the choice of `imgclf.create` lose to plain features on pictures of unusual shapes? Several draws of several kinds of pictures.

    python experiments/shapes.py [DATA ...] [--weights FILE] [--kinds lying standing mixed panorama ordinary tiny] [--draws 6] [--train 20]

DATA are folders of class folders (default: four sets of ../shared/data; the photos of imagenet_sample, one of each class, are told apart as
animals and things). Of each photo one picture of each kind is made: a lying or a standing strip of a fifth to a half of it (mixed: one or
the other), a panorama two to four times as long as the photo, which stands anywhere in a strip of other scenery, the photo as it is, or
that in 32 pixels. Each draw deals the pictures of each class anew: --train of them (at most half) train, up to 60 of the others test.

What create does is done without its report: `create.settle`, the choice of what the network is shown, and the head. The baselines are
scikit-learn's logistic regressions (standardised, C = 0.01; plain, C = 1) on features of the centre crop and of the squashed picture.

Prints a line per case: the accuracies in per cent, means over the draws; what create is ahead of each baseline by, with a 95 % interval
over photos (all answers of a picture count as one); what each draw chose; and what each choice would have had in all draws.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from imgclf import models
from imgclf.config import Config
from imgclf.data.prepare import load_path
from imgclf.data.splits import subset
from imgclf.data.table import Dataset
from imgclf.methods import resolve
from imgclf.methods.base import Task
from imgclf.methods.linear_head import LinearHead
from imgclf.models.network import Network
from imgclf.probes import ties
from imgclf.probes.features import extract
from imgclf.runtime import compilation_cache
from imgclf.training import sharding
from imgclf.workflows import create, preprocessing, scenes
from imgclf.workflows.candidates import changed

SHARED = Path(__file__).resolve().parents[2] / "shared"
SETS = ("clothing10", "doraemon_walle", "imagenet_sample", "cifar10_test1000")
FIRST_THING = "n02666"  # WordNet's numbers of the animals of ImageNet are below it
TEST, EDGE, TINY = 60, 500, 32  # pictures of a class at most; px of the longer side
QUIET = Console(quiet=True)
WAYS = {  # to show a picture
    "crop": {},
    "squash": {"data.resize": "squash"},
    "flip": {"eval.views": "flip"},
    "squash and flip": {"data.resize": "squash", "eval.views": "flip"},
    "framings": {"eval.views": "framings"},
}
BASELINES = {
    "standardised, C = 0.01": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000)),
    "plain, C = 1": lambda: LogisticRegression(C=1.0, max_iter=5000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=[str(SHARED / "data" / name) for name in SETS])
    parser.add_argument("--weights", default=str(SHARED / "weights" / "mobilenet_v2_0.35_224_no_top.keras.h5"))
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=list(KINDS))
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--train", type=int, default=20)
    parser.add_argument("--ways", action="store_true", help="also say what each way to show pictures would have had in all draws")
    args = parser.parse_args()
    compilation_cache.enable()
    for data in args.data:
        for kind in args.kinds:
            with tempfile.TemporaryDirectory() as folder:
                make(photos(Path(data)), kind, Path(folder))
                told(f"{Path(data).name}, {kind}", judged(load_path(folder)[0], args))


def photos(folder: Path) -> list[tuple[Path, str]]:
    """The photos of a folder, with their classes."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if any(path.parent != folder for path in found):
        return [(path, path.parent.name) for path in found]
    return [(path, "animal" if path.name < FIRST_THING else "thing") for path in found]


def strip(photo: Image.Image, rng: np.random.Generator, *, lying: bool) -> Image.Image:
    """A fifth to a half of a photo, all of its width or height."""
    share = rng.uniform(0.2, 0.5)
    along, across = (1.0, share) if lying else (share, 1.0)
    width, height = photo.size
    left, top = width * (1 - along) / 2, height * (1 - across) / 2
    return photo.crop((int(left), int(top), int(width - left), int(height - top)))


def panorama(photo: Image.Image, rng: np.random.Generator, *, lying: bool) -> Image.Image:
    """A strip of scenery in which the photo stands somewhere."""
    photo.thumbnail((300, 300))
    width, height = photo.size
    length = rng.uniform(2, 4)
    size = (int(width * length), height) if lying else (width, int(height * length))
    places = sorted((SHARED / "data" / "imagenet_sample").glob("n09*.JPEG"))  # mountains, lakes, volcanoes
    with Image.open(places[rng.integers(len(places))]) as opened:
        scenery = opened.convert("RGB")
    scale = max(size[0] / scenery.width, size[1] / scenery.height)
    canvas = scenery.resize((round(scenery.width * scale) + 1, round(scenery.height * scale) + 1)).crop((0, 0, *size))
    canvas.paste(photo, (int(rng.integers(0, size[0] - width + 1)), int(rng.integers(0, size[1] - height + 1))))
    return canvas


def tiny(photo: Image.Image) -> Image.Image:
    scale = TINY / max(photo.size)
    return photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))))


KINDS: dict[str, Callable[[Image.Image, np.random.Generator, int], Image.Image]] = {
    "lying": lambda photo, rng, number: strip(photo, rng, lying=True),
    "standing": lambda photo, rng, number: strip(photo, rng, lying=False),
    "mixed": lambda photo, rng, number: strip(photo, rng, lying=number % 2 == 1),
    "panorama": lambda photo, rng, number: panorama(photo, rng, lying=number % 2 == 1),
    "ordinary": lambda photo, rng, number: photo,
    "tiny": lambda photo, rng, number: tiny(photo),
}


def make(found: list[tuple[Path, str]], kind: str, folder: Path) -> None:
    """Writes a picture of each photo."""
    for number, (path, name) in enumerate(found):
        with Image.open(path) as opened:
            picture = KINDS[kind](opened.convert("RGB"), np.random.default_rng((0, number)), number)
        picture.thumbnail((EDGE, EDGE))
        target = folder / name / f"{hashlib.sha256(str(path.name).encode()).hexdigest()[:12]}-{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)


class Drawn(NamedTuple):
    """Of one draw: the test rows, what create chose, and who is right on each of them."""

    rows: np.ndarray
    chosen: str
    right: np.ndarray
    baselines: dict[str, np.ndarray]
    ways: dict[str, np.ndarray]


def judged(data: Dataset, args: argparse.Namespace) -> list[Drawn]:
    """All draws of a kind."""
    labels, weights = data.table["label"].to_numpy(np.int64), f"path:{args.weights}"
    config = create.settle(data, weights=weights, method="probe").config
    model = models.create(resolved(config, data), len(data.class_names), tell=lambda said: None)
    features = {name: features_of(shown(config, way, data), model, data) for name, way in WAYS.items()}
    results = []
    for draw in range(args.draws):
        rng = np.random.default_rng(draw)
        train, test = list[int](), list[int]()
        for label in range(len(data.class_names)):
            rows = rng.permutation(np.flatnonzero(labels == label))
            count = min(args.train, len(rows) // 2)
            train, test = [*train, *rows[:count]], [*test, *rows[count : count + TEST]]
        part = subset(data, np.sort(train))
        choice = create.settle(dataclasses.replace(part, table=part.table.assign(split="")), weights=weights, method="probe")
        chosen, _ = preprocessing.select(choice.config, choice.dataset, scenes.once(scenes.finder(choice.config, QUIET)), QUIET)
        ways = {}
        name = next(name for name, way in WAYS.items() if same(chosen, shown(config, way, data)))
        for way in WAYS if args.ways else [name]:
            head = headed(shown(choice.config, WAYS[way], data), model, choice.dataset)
            ways[way] = (features[way][test] @ head["kernel"] + head["bias"]).argmax(1) == labels[test]
        baselines = {
            f"{framing}, {peer}": fitted().fit(features[framing][train], labels[train]).predict(features[framing][test]) == labels[test]
            for framing in ("crop", "squash")
            for peer, fitted in BASELINES.items()
        }
        results.append(Drawn(np.array(test), name, ways[name], baselines, ways))
    return results


def resolved(config: Config, data: Dataset) -> Config:
    return resolve.resolve(resolve.check(config), len(data.class_names))


def shown(config: Config, way: dict[str, str], data: Dataset) -> Config:
    """A config in which pictures are shown in this way, at the weights' own interpolation."""
    return changed(config, {**way, "data.interpolation": resolved(config, data).data.interpolation})


def same(one: Config, other: Config) -> bool:
    return (one.data.resize == "squash", one.eval.views) == (other.data.resize == "squash", other.eval.views)


def features_of(config: Config, model: Network, data: Dataset) -> np.ndarray:
    return np.array(extract(resolved(config, data), model, data, console=QUIET))


def headed(config: Config, model: Network, data: Dataset) -> dict[str, np.ndarray]:
    """The kernel and the bias that all training pictures give."""
    task = Task(resolved(config, data), data, model, sharding.create_mesh(), QUIET)
    logits = LinearHead.check(task, None).solve(repeats=False).params["head"]["logits"]
    return {name: np.asarray(logits[name]) for name in ("kernel", "bias")}


def told(name: str, results: list[Drawn]) -> None:
    """Prints the lines of a case."""
    rows, ours = np.concatenate([one.rows for one in results]), np.concatenate([one.right for one in results]).astype(float)
    print(f"{name}: create {100 * ours.mean():.1f} ({dict(Counter(one.chosen for one in results))})", flush=True)
    for peer in results[0].baselines:
        theirs = np.concatenate([one.baselines[peer] for one in results])
        ahead, half = 100 * (ours - theirs), 196 * ties.standard_error(ours - theirs, groups=rows)
        interval = f"{ahead.mean():+.1f} points ({ahead.mean() - half:+.1f} to {ahead.mean() + half:+.1f})"
        print(f"  {peer}: {100 * theirs.mean():.1f}; create is {interval} from it", flush=True)
    if len(results[0].ways) > 1:
        each = ", ".join(f"{way} {100 * np.mean(np.concatenate([one.ways[way] for one in results])):.1f}" for way in results[0].ways)
        print(f"  {each}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
