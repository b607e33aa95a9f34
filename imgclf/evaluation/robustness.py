"""What a classifier is worth on corrupted photos, and whether it takes a photo for the same whichever way its file is stored."""

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np
from PIL import Image

from imgclf.config import Config
from imgclf.data import augment, images
from imgclf.data.table import Dataset
from imgclf.errors import UserError, nearest
from imgclf.evaluation import compare, intervals
from imgclf.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupted

Condition = tuple[str, int]  # corruption, severity; ("clean", 0)
CLEAN: Condition = ("clean", 0)
ORIENTATIONS = range(1, 9)  # EXIF's
# How a file of each orientation holds an upright picture: the inverse of what its reader does (JEITA CP-3451, tag 0x0112).
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def conditions(names: Sequence[str] = tuple(CORRUPTIONS), severities: Sequence[int] = SEVERITIES) -> list[Condition]:
    """Lists what to test: clean first, then each corruption at each severity.

    Raises:
      UserError: for an unknown corruption or severity, or none.
    """
    for name in names:
        if name not in CORRUPTIONS:
            raise UserError(f"There is no corruption {name!r}; {nearest(name, CORRUPTIONS)} All of them: {', '.join(CORRUPTIONS)}.")
    for severity in severities:
        if severity not in SEVERITIES:
            raise UserError(f"There is no severity {severity}; take some of {', '.join(map(str, SEVERITIES))}.")
    if not names or not severities:
        raise UserError(f"Nothing is left to test: name a corruption ({', '.join(CORRUPTIONS)}) and a severity, 1 to 5.")
    return [CLEAN, *((name, severity) for name in dict.fromkeys(names) for severity in sorted(set(severities)))]


class LazyImages(Sequence[np.ndarray]):
    """Images that are made when they are asked for, in whichever thread asks: uint8 [H, W, 3], or [V, H, W, 3]."""

    def __init__(self, count: int, make: Callable[[int], np.ndarray]):
        """
        Args:
          count: how many there are.
          make: makes the image of a place from 0 to count − 1.
        """
        self._places, self._make = range(count), make

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, item: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, item: slice) -> list[np.ndarray]: ...

    def __getitem__(self, item: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(item, slice):
            return [self._make(place) for place in self._places[item]]
        return self._make(self._places[item])


def corrupted_views(dataset: Dataset, config: Config, tested: Sequence[Condition], seed: int = 0) -> LazyImages:
    """What the model is shown of every image under every condition: item i is image i // C under condition i % C.

    Items have `augment.Preprocessing.shape`.

    An image is decoded once while its conditions are asked for one after another.

    Args:
      dataset: the images.
      config: the whole config of the model.
      tested: the C conditions, see `conditions`.
      seed: of the corruptions.
    """
    photo_of = functools.lru_cache(maxsize=8)(dataset.reader.__getitem__)
    ids, shown = dataset.table["id"].tolist(), augment.Preprocessing.of(config)

    def make(item: int) -> np.ndarray:
        row, number = divmod(item, len(tested))
        name, severity = tested[number]
        photo = photo_of(row)
        if (name, severity) == CLEAN:
            return shown.shown(photo).copy()  # of a photo that is as large as the input, it may be the photo itself
        return corrupted(photo, name, severity, config, seed=seed, example_id=ids[row])

    return LazyImages(len(ids) * len(tested), make)


def oriented_photos(dataset: Dataset, rows: np.ndarray) -> LazyImages:
    """Some photos as decoded from JPEG files of each EXIF orientation: item i is photo i // 8, upright, from orientation i % 8 + 1."""

    def make(item: int) -> np.ndarray:
        row, number = divmod(item, len(ORIENTATIONS))
        return images.decode(stored(dataset.reader[int(rows[row])], ORIENTATIONS[number]))

    return LazyImages(len(rows) * len(ORIENTATIONS), make)


def stored(photo: np.ndarray, orientation: int) -> bytes:
    """A JPEG file that holds an upright picture in an EXIF orientation, 1 to 8.

    Quality 100, whose quantisation is the same in both directions, and colours at full resolution: so the eight files hold the same
    picture to a few grey levels.

    Args:
      photo: uint8 [h, w, 3].
    """
    picture, file, exif = Image.fromarray(photo), io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    if orientation in _STORED:
        picture = picture.transpose(_STORED[orientation])
    picture.save(file, "JPEG", quality=100, subsampling=0, exif=exif)
    return file.getvalue()


def summarize(correct: Mapping[Condition, np.ndarray]) -> dict[str, Any]:
    """The accuracies of one classifier, or of one arm's over seeds.

    Args:
      correct: condition → bool [S, N], `CLEAN` among them.

    Returns:
      `clean` (see `compare.accuracy`); `corruptions`: name → {`severities`: severity → `top1`, `top1_ci95` (Wilson), `drop` below
      clean and `drop_ci95` (paired bootstrap over images and seeds), `top1` and `drop`: the means over severities}; `mean_top1`, the mean
      corruption accuracy (each corruption counts alike), with `mean_top1_ci95`, and `mean_drop` with `mean_drop_ci95`, by bootstrap.
    """
    clean = correct[CLEAN]
    rows: dict[str, Any] = {}
    for (name, severity), right in correct.items():
        if name == CLEAN[0]:
            continue
        about = compare.accuracy(right)
        low, high = intervals.bootstrap(clean.astype(float) - right)
        row = {"top1": about["top1"], "top1_ci95": about["top1_ci95"], "drop": float(clean.mean() - right.mean()), "drop_ci95": [low, high]}
        rows.setdefault(name, {"severities": {}})["severities"][str(severity)] = row
    for row in rows.values():
        row |= {key: float(np.mean([one[key] for one in row["severities"].values()])) for key in ("top1", "drop")}
    mean = mean_correct(correct)
    return {
        "clean": compare.accuracy(clean),
        "corruptions": rows,
        "mean_top1": float(mean.mean()),
        "mean_top1_ci95": intervals.bootstrap(mean),
        "mean_drop": float(clean.mean() - mean.mean()),
        "mean_drop_ci95": intervals.bootstrap(clean - mean),
    }


def mean_correct(correct: Mapping[Condition, np.ndarray]) -> np.ndarray:
    """Share of the corrupted versions of each image that was right, float64 [S, N]; each corruption counts alike."""
    by_name: dict[str, list[np.ndarray]] = {}
    for (name, _), right in correct.items():
        if name != CLEAN[0]:
            by_name.setdefault(name, []).append(right)
    return np.mean([np.mean(right, 0) for right in by_name.values()], 0)


def orientations(probabilities: np.ndarray) -> dict[str, Any]:
    """Compares the answers to the eight files of each picture.

    Args:
      probabilities: [N, 8, C].

    Returns:
      `images` N, `same`: how many have one answer in all orientations, `largest_difference` of a probability from the first's.
    """
    answers = probabilities.argmax(-1)
    return {
        "images": len(answers),
        "same": int((answers == answers[:, :1]).all(1).sum()),
        "largest_difference": float(np.abs(probabilities - probabilities[:, :1]).max()),
    }
