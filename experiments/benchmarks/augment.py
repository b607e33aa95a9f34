"""How many views a second each kind of augmentation gives, on one thread, from decoded photos.

    python experiments/benchmarks/augment.py DIR                    # the photos under DIR, held decoded; views of 224 x 224
    python experiments/benchmarks/augment.py DIR --peer PYTHON      # alternate with torchvision v2, run by that PYTHON, and give the ratios

`resample …` take the photo; every other operation starts from a view of 224, uint8, ours as it is, torchvision's as a contiguous tensor
[3, H, W]. Policies take the photo, as in training: ours in one resample, torchvision's RandomResizedCrop (antialiased, bilinear) and then
the policy. Draws are random on both sides. `torchvision PIL` is the same on Pillow images, from an image and to an image.
Both processes are kept for all pairs; one's turn at an operation follows the other's. Quote ratios from a quiet machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torchvision_v2
from PIL import Image

SIZE = 224
# name → fields of config.augment
FIELDS = {
    "resample crop": {"crop_scale": (0.08, 1.0), "flip": 0.5},
    "resample turned": {"rotate": 30.0, "shear": 10.0, "zoom": (0.8, 1.2), "shift": (0.1, 0.1)},
    "resample perspective": {"perspective": 0.5},
    "rand_augment": {"crop_scale": (0.08, 1.0), "policy": "rand_augment"},
    "trivial_augment": {"crop_scale": (0.08, 1.0), "policy": "trivial_augment"},
    "aug_mix": {"crop_scale": (0.08, 1.0), "policy": "aug_mix"},
}
# name → what comes after the view
OPERATIONS = {
    "brightness": 1.5,
    "contrast": 1.5,
    "color": 1.5,
    "sharpness": 1.5,
    "posterize": 4,
    "solarize": 128,
    "invert": 0,
    "equalize": 0,
    "autocontrast": 0,
    "blur": 1.5,
    "noise": 20.0,
    "jpeg": 50,
}


def main() -> None:
    args = _arguments()
    if args.serve:
        _serve(args.folder, args.photos, args.seconds)
        return
    ours = _imgclf(_photos(args.folder, args.photos))
    peer = _Peer(args) if args.peer else None
    names = [name for name in (*FIELDS, *OPERATIONS) if not args.only or name in args.only]
    print(f"{args.photos} photos, views of {SIZE}, one thread, {args.pairs if peer else 1} turns of {args.seconds} s each", flush=True)
    for name in names:
        rates: dict[str, list[float]] = {}
        for _ in range(args.pairs if peer else 1):
            rates.setdefault("imgclf", []).append(rate(ours[name], args.seconds))
            for kind, figure in (peer.rates(name) if peer else {}).items():
                rates.setdefault(kind, []).append(figure)
        print(f"{name:20s}" + "".join(f" {_told(kind, figures, rates['imgclf'])}" for kind, figures in rates.items()), flush=True)


def rate(function: Callable[[int], object], seconds: float) -> float:
    """Calls per second; `function` is given the number of the call."""
    function(0)
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        function(count)
        count += 1
    return count / passed


def _told(kind: str, figures: list[float], ours: list[float]) -> str:
    text = f"{kind} {statistics.median(figures):,.0f} img/s"
    if kind == "imgclf":
        return text
    ratios = [own / other for own, other in zip(ours, figures, strict=True)]
    return f"| {text}, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def _photos(folder: str, count: int) -> list[np.ndarray]:
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [np.array(Image.open(path).convert("RGB")) for path in files[:: max(1, len(files) // count)][:count]]


def _imgclf(photos: list[np.ndarray]) -> dict[str, Callable[[int], object]]:
    import types

    import cv2

    from imgclf.config import default_config
    from imgclf.data import augment
    from imgclf.data.augment.pixels import Operation

    cv2.setNumThreads(0)
    views = [augment.view(photo, (SIZE, SIZE), "crop") for photo in photos]
    defaults = default_config().augment.to_dict()

    def from_photo(fields: types.SimpleNamespace) -> Callable[[int], object]:
        def call(n: int) -> np.ndarray:
            return augment.view(photos[n % len(photos)], (SIZE, SIZE), "squash", fields, augment.view_rng(0, "id", n))

        return call

    def from_view(name: str, amount: float) -> Callable[[int], object]:
        return lambda n: augment.pixels.apply(views[n % len(views)], (Operation(name, amount, seed=n),))

    functions = {name: from_photo(types.SimpleNamespace(**(defaults | fields))) for name, fields in FIELDS.items()}
    return functions | {name: from_view(name, amount) for name, amount in OPERATIONS.items()}


def _torchvision(photos: list[np.ndarray]) -> dict[str, dict[str, Callable[[int], object]]]:
    import torch

    torch.set_num_threads(1)
    v2 = torchvision_v2.load()
    functional = v2.functional

    crop = v2.RandomResizedCrop(SIZE, antialias=True)
    transforms = {
        "resample crop": v2.Compose([crop, v2.RandomHorizontalFlip()]),
        "resample turned": v2.Compose(
            [
                v2.Resize((SIZE, SIZE), antialias=True),
                v2.RandomAffine(30, (0.1, 0.1), (0.8, 1.2), 10, interpolation=v2.InterpolationMode.BILINEAR),
            ]
        ),
        "resample perspective": v2.Compose([v2.Resize((SIZE, SIZE), antialias=True), v2.RandomPerspective(0.5, 1.0)]),
        "rand_augment": v2.Compose([crop, v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR)]),
        "trivial_augment": v2.Compose([crop, v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)]),
        "aug_mix": v2.Compose([crop, v2.AugMix()]),
    }
    operations = {
        "brightness": lambda view: functional.adjust_brightness(view, 1.5),
        "contrast": lambda view: functional.adjust_contrast(view, 1.5),
        "color": lambda view: functional.adjust_saturation(view, 1.5),
        "sharpness": lambda view: functional.adjust_sharpness(view, 1.5),
        "posterize": lambda view: functional.posterize(view, 4),
        "solarize": lambda view: functional.solarize(view, 128),
        "invert": functional.invert,
        "equalize": functional.equalize,
        "autocontrast": functional.autocontrast,
        "blur": lambda view: functional.gaussian_blur(view, [9, 9], [1.5, 1.5]),
        "noise": lambda view: functional.gaussian_noise(view, 0.0, 20 / 255),
        "jpeg": lambda view: functional.jpeg(view, 50),
    }
    images = [Image.fromarray(photo) for photo in photos]
    tensors = [torch.from_numpy(photo).permute(2, 0, 1).contiguous() for photo in photos]
    resize = v2.Resize((SIZE, SIZE), antialias=True)
    kinds = {"torchvision uint8": tensors, "torchvision PIL": images}
    calls: dict[str, dict[str, Callable[[int], object]]] = {}
    for kind, inputs in kinds.items():
        views = [resize(each) for each in inputs]
        for name, function in transforms.items():
            calls.setdefault(name, {})[kind] = _over(inputs, function)
        for name, function in operations.items():
            calls.setdefault(name, {})[kind] = _over(views, function)
    return calls


def _over(inputs: list, function: Callable) -> Callable[[int], object]:
    return lambda n: function(inputs[n % len(inputs)])


def _serve(folder: str, count: int, seconds: float) -> None:
    """The peer's process: answers each name with a line of JSON, {kind: images/s}."""
    os.environ["OMP_NUM_THREADS"] = "1"
    functions = _torchvision(_photos(folder, count))
    print("ready", flush=True)
    for line in sys.stdin:
        figures = {}
        for kind, function in functions.get(line.strip(), {}).items():
            try:
                figures[kind] = rate(function, seconds)
            except (RuntimeError, NotImplementedError, TypeError, ValueError):  # not made for this kind of image
                continue
        print(json.dumps(figures), flush=True)


class _Peer:
    def __init__(self, args: argparse.Namespace):
        command = [args.peer, __file__, args.folder, "--serve", f"--photos={args.photos}", f"--seconds={args.seconds}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while (line := self._process.stdout.readline()).strip() != "ready":
            if not line:
                raise SystemExit(f"{args.peer} did not start; has it torch, torchvision and Pillow?")

    def rates(self, name: str) -> dict[str, float]:
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="with photos in it, or in folders of it")
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each turn")
    parser.add_argument("--pairs", type=int, default=5, help="how often to alternate with the peer")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter with torch and torchvision")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these operations alone")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
