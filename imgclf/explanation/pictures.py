"""The pictures of an explanation: what the network was shown, sharp enough to look at, and the maps laid over it."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from rich.console import Console

from imgclf import progress
from imgclf.data import augment
from imgclf.explanation import cam, occlusion, overlay
from imgclf.explanation.choices import NAMES, Method
from imgclf.explanation.explained import Explained
from imgclf.explanation.neighbours import Neighbour, References

EDGE = 224  # pixels of the longer side of a picture


class Picture(NamedTuple):
    """An image that is explained.

    Attributes:
      view: uint8 [H, W, 3], the plain view of evaluation, which is what the maps are of.
      shown: uint8 [H, W, 3] or [V, H, W, 3], all views of evaluation, which the answer is of.
      sharp: uint8 [h, w, 3], what the plain view shows, at `EDGE` pixels, and not squashed.
    """

    view: np.ndarray
    shown: np.ndarray
    sharp: np.ndarray


def read(preprocessing: augment.Preprocessing, pixels_of: Callable[[int], np.ndarray], count: int, console: Console) -> list[Picture]:
    """Reads images in threads; `pixels_of` returns the pixels of an image by its number, uint8 [h, w, 3]."""

    def make(row: int) -> Picture:
        pixels = pixels_of(row)
        view = preprocessing.plain(pixels)
        shown = view if preprocessing.views == "plain" else preprocessing.shown(pixels)
        return Picture(view.copy(), shown, sharp(preprocessing, pixels))

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress.bar(console) as bar:
        return list(bar.track(pool.map(make, range(count)), total=count, description="pictures"))


def sharp(preprocessing: augment.Preprocessing, pixels: np.ndarray) -> np.ndarray:
    """What the plain view shows of an image, uint8 [h, w, 3] with a longer side of `EDGE`; pixels of small images are shown as squares."""
    if max(pixels.shape[:2]) < EDGE // 2:
        times = -(-EDGE // max(pixels.shape[:2]))
        pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    shape = pixels.shape[:2] if preprocessing.resize == "squash" else preprocessing.size
    height, width = (max(1, round(EDGE * side / max(shape))) for side in shape)
    return dataclasses.replace(preprocessing, size=(height, width), views="plain").plain(pixels).copy()


def explain(model: Explained, method: Method, views: np.ndarray, labels: np.ndarray, console: Console) -> np.ndarray:
    """Maps of images, with a progress bar.

    Args:
      model: the trained network.
      method: hirescam | occlusion.
      views: uint8 [n, H, W, 3].
      labels: int [n, k].

    Returns:
      float32 [n, k, h, w], see `cam.maps` and `occlusion.maps`.

    Raises:
      UserError: where HiResCAM can't tell places apart.
    """
    with progress.bar(console, rate="images") as bar:
        task = bar.add_task(NAMES[method], total=len(views))
        maps = cam.maps if method == "hirescam" else occlusion.maps
        return maps(model, views, labels, on_batch=lambda images: bar.advance(task, images))


def overlays(picture: Picture, maps: np.ndarray) -> list[np.ndarray]:
    """A picture with each of its maps over it, float32 [k, h, w], in one scale, so that they can be compared: k times uint8 [h, w, 3]."""
    scale = overlay.scale_of(maps)
    return [overlay.overlay(picture.sharp, one, scale) for one in maps]


def stacked(pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """The views and what was shown of several pictures, each in one array."""
    return np.stack([picture.view for picture in pictures]), np.stack([picture.shown for picture in pictures])


@dataclasses.dataclass(frozen=True)
class Search:
    """Which training images are looked for: the `k` nearest of each query, float32 [n, D]; see `References.nearest`."""

    references: References
    features: np.ndarray
    k: int
    sha256: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class ExplainedImage:
    """An image with its maps.

    Attributes:
      sharp: uint8 [h, w, 3], see `Picture`.
      classes: whose maps there are.
      maps: float32 [k, h, w], one for each of these.
      overlays: k times uint8 [h, w, 3], the picture under its maps.
      neighbours: the nearest training images; none where they weren't looked for.
    """

    sharp: np.ndarray
    classes: list[str]
    maps: np.ndarray
    overlays: list[np.ndarray]
    neighbours: list[Neighbour]


def explained(
    model: Explained,
    pictures: Sequence[Picture],
    labels: np.ndarray,
    *,
    class_names: Sequence[str],
    method: Method,
    search: Search | None,
    console: Console,
) -> list[ExplainedImage]:
    """Explains images; of an image's labels, int [n, k], those that are the same are explained once."""
    if not pictures:
        return []
    maps = explain(model, method, stacked(pictures)[0], labels, console)
    near = search.references.nearest(search.features, search.k, search.sha256) if search else [[] for _ in pictures]
    made = []
    for picture, own, of, neighbours in zip(pictures, maps, labels.tolist(), near, strict=True):
        kept = [place for place, label in enumerate(of) if label not in of[:place]]
        names = [class_names[of[place]] for place in kept]
        made.append(ExplainedImage(picture.sharp, names, own[kept], overlays(picture, own[kept]), neighbours))
    return made
