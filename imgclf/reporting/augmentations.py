"""The page of `imgclf data augmentations`: what every field of `config.augment` does to a picture, at a few strengths.

Views are made by the code of training: geometry, policies and pixel operations by `augment.render`, colour, erasing and mixing by
`batch_augment`, which the training step uses.
"""

import dataclasses
import os
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import outputs
from imgclf.config import default_config
from imgclf.data import augment
from imgclf.data.augment import Draw, pixels, view_rng
from imgclf.data.augment.color import Color
from imgclf.data.augment.pixels import Operation
from imgclf.reporting import pages
from imgclf.training import batch_augment, mixing

SIZE = (192, 192)
_DRAWS = 6  # of a policy
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Shown = list[tuple[str, np.ndarray]]  # captions and pictures, uint8 [H, W, 3]


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the page: one operation at a few strengths."""

    name: str
    fields: str  # a line of config
    remark: str
    shown: Shown


def write_page(images: Sequence[tuple[str, np.ndarray]], partner: np.ndarray, path: str | os.PathLike[str]) -> Path:
    """Writes the page.

    Args:
      images: names and pictures, uint8 [h, w, 3].
      partner: with whom the last picture is mixed, uint8 [h, w, 3]; each other one is mixed with the next.
      path: of the page; an older page there is replaced.

    Returns:
      The path of the page.

    Raises:
      UserError: if something else stands there.
    """
    path = outputs.check_file(path)
    partners = [pixels for _, pixels in images[1:]] + [partner]
    pictures = []
    for (name, image), other in zip(images, partners, strict=True):
        sections: list[dict[str, Any]] = []
        for title, text, rows in sections_of(image, other):
            shown = [
                {"name": row.name, "fields": row.fields, "remark": row.remark, "shown": [(said, _source(view)) for said, view in row.shown]}
                for row in rows
            ]
            sections.append({"title": title, "text": text, "rows": shown})
        pictures.append({"name": name, "plain": _source(augment.view(image, SIZE, "crop")), "sections": sections})
    count = len({row["name"] for section in sections for row in section["rows"]})
    context = {"pictures": pictures, "operations": count, "style": pages.source("report.css") + pages.source("augmentations.css")}
    return pages.write(path, "augmentations.html.j2", context)


def sections_of(image: np.ndarray, partner: np.ndarray) -> list[tuple[str, str, list[Row]]]:
    """Returns title, text and rows of each section, for a picture and the one it is mixed with."""
    return [
        (
            "Geometry",
            "Every one of these, and the geometry of a policy, goes into one matrix: the photo is resampled once.",
            _geometry(image),
        ),
        (
            "Policies",
            f"{_DRAWS} draws each. Turns are part of the one matrix, pixel operations follow in the order drawn.",
            _policies(image),
        ),
        ("Pixel operations", "After the policy, in this order; on the host.", _pixels(image)),
        ("Colour", "One affine matrix per image, clipped once; in the training step.", _color(image)),
        ("Erasing", "After colour; in the training step.", _erasing(image)),
        ("Mixing", "With the labels, by the same shares; in the training step.", _mixing(image, partner)),
    ]


def _geometry(image: np.ndarray) -> list[Row]:
    def shown(**captions: Draw) -> Shown:
        return [(said.replace("-", "−"), augment.render(image, drawn, SIZE, "crop")) for said, drawn in captions.items()]

    def draws(**fields: Any) -> Shown:
        return [(f"draw {n + 1}", view) for n, view in enumerate(_drawn(image, 4, **fields))]

    legacy = [("corrected", Draw(rotate=30.0)), ("keras_legacy", Draw(mode="keras_legacy", rotate=30.0))]
    fills = [(fill, augment.render(image, Draw(rotate=30.0, zoom=(1.4, 1.4)), SIZE, "crop", fill=fill)) for fill in augment.BORDERS]
    corners = (0.9, 0.7, 0.1, 0.5, 0.6, 0.2, 0.3, 0.8)
    return [
        Row("flip", "flip=0.5, vertical_flip=0.5", "Probabilities.", shown(flip=Draw(flip=True), vertical_flip=Draw(vertical_flip=True))),
        Row(
            "rotate",
            "rotate=30.0",
            "Degrees, uniform in ±.",
            shown(**{f"{d:+d}°": Draw(rotate=d) for d in (-30, -10, 10, 30)}),
        ),
        Row("shear", "shear=20.0", "Degrees, uniform in ±.", shown(**{f"{d:+d}°": Draw(shear=d) for d in (-20, -8, 8, 20)})),
        Row(
            "shift",
            "shift=(0.2, 0.2)",
            "Shares of height and width, uniform in ±.",
            shown(**{f"{y:+.1f}, {x:+.1f}": Draw(shift=(y, x)) for y, x in ((0.1, 0.0), (-0.2, 0.0), (0.0, 0.2), (0.1, -0.2))}),
        ),
        Row(
            "zoom",
            "zoom=(0.7, 1.4), zoom_joint=False",
            "A factor for each axis, or one for both; above 1 zooms out, as in Keras.",
            shown(**{f"{y}, {x}": Draw(zoom=(y, x)) for y, x in ((0.7, 0.7), (1.4, 1.4), (0.7, 1.0), (1.0, 1.4))}),
        ),
        Row(
            "perspective",
            "perspective=0.5",
            "Corners move inwards by shares of half the size, uniform in 0 to this.",
            shown(**{f"{share}": Draw(perspective=tuple(share * c for c in corners)) for share in (0.2, 0.4, 0.6)}),
        ),
        Row("random resized crop", "crop_scale=(0.08, 1.0)", "A share of the area, at a random place.", draws(crop_scale=(0.08, 1.0))),
        Row("padded crop", "pad_crop=24", "Padded by so many pixels, cropped back: the CIFAR recipe.", draws(pad_crop=24)),
        Row(
            "margin",
            "margin_crop=0.2, margin_scale=0.3",
            "Made larger by a factor, cropped back: retrain.py's distortions.",
            draws(margin_crop=0.2, margin_scale=0.3),
        ),
        Row("fill", 'fill="nearest"', "What stands outside the photo.", fills),
        Row(
            "keras_legacy",
            'mode="keras_legacy"',
            "ImageDataGenerator as the tutorials ran it: nearest neighbours first, about a point off the centre; here rotate=30.",
            [(said, augment.render(image, drawn, SIZE, "squash")) for said, drawn in legacy],
        ),
    ]


def _policies(image: np.ndarray) -> list[Row]:
    def row(policy: str, arguments: str, remark: str) -> Row:
        shown = []
        for n, view in enumerate(_drawn(image, _DRAWS, policy=policy, policy_args=arguments)):
            chains = augment.draw(view_rng(0, "gallery", n), _fields(policy=policy, policy_args=arguments)).policy
            shown.append((_told(chains), view))
        return Row(policy, f'policy="{policy}"' + (f', policy_args="{arguments}"' if arguments else ""), remark, shown)

    return [
        row("rand_augment", "operations=2, magnitude=9", "Cubuk 2020: some operations, all of one magnitude of 31."),
        row("rand_augment", "operations=2, magnitude=20", "The same, stronger."),
        row("trivial_augment", "", "Müller & Hutter 2021, wide: one operation, any of 31 magnitudes."),
        row("aug_mix", "severity=3", "Hendrycks 2020: chains of operations, mixed with the view."),
        row("aug_mix", "severity=10, alpha=2.0", "The same, stronger."),
    ]


def _told(chains: Sequence[Any]) -> str:
    """Names the operations that were drawn."""
    if len(chains) > 1:
        return f"{chains[0].weight:.0%} plain"
    operations = [*chains[0].turns, *chains[0].pixels]
    return ", ".join(operation.name + _amount(operation) for operation in operations) or "identity"


def _amount(operation: Operation) -> str:
    return "" if not pixels.takes_amount(operation.name) else f" {operation.amount:.3g}".replace("-", "−")


def _pixels(image: np.ndarray) -> list[Row]:
    plain = augment.view(image, SIZE, "crop")

    def shown(name: str, *amounts: float, caption: str = "{:g}") -> Shown:
        drawn = {caption.format(amount): Draw(pixels=(Operation(name, amount, seed=1),)) for amount in amounts}
        return [("as it is", plain), *((said, augment.render(image, each, SIZE, "crop")) for said, each in drawn.items())]

    return [
        Row(field.name, f"{field.name}={field.example}", field.remark, shown(field.name, *field.shown, caption=field.caption))
        for field in pixels.FIELDS
    ]


def _color(image: np.ndarray) -> list[Row]:
    view = augment.view(image, SIZE, "crop")

    def shown(**captions: Color) -> Shown:
        affine = np.stack([augment.color.matrix(drawn, view) for drawn in captions.values()])
        return [("as it is", view), *zip(captions, _in_step({"image": np.stack([view] * len(affine)), "color": affine}), strict=True)]

    factors = (0.4, 0.7, 1.3, 1.6)
    return [
        Row("brightness", "brightness=0.6", "A factor, uniform in 1 ± this.", shown(**{f"× {f}": Color(brightness=f) for f in factors})),
        Row(
            "contrast",
            "contrast=0.6",
            "Of the distance from the view's mean grey: a factor in 1 ± this.",
            shown(**{f"× {f}": Color(contrast=f) for f in factors}),
        ),
        Row(
            "saturation",
            "saturation=0.6",
            "Of the distance from grey: a factor in 1 ± this.",
            shown(**{f"× {f}": Color(saturation=f) for f in factors}),
        ),
        Row(
            "hue",
            "hue=60.0",
            "Degrees, turned in YIQ; uniform in ±.",
            shown(**{f"{d:+d}°".replace("-", "−"): Color(hue=d) for d in (-60, -20, 20, 60)}),
        ),
        Row("grayscale", "grayscale=0.2", "Probability of no colour.", shown(applied=Color(grayscale=True))),
    ]


def _erasing(image: np.ndarray) -> list[Row]:
    view = augment.view(image, SIZE, "crop")

    def shown(fill: str, **fields: Any) -> Shown:
        asked = _fields(erase_fill=fill, **fields)
        drawn = [erase for n in range(4) if (erase := augment.draw(view_rng(0, "gallery", n), asked).erase) is not None]  # all of them
        arrays = {"erase": np.stack([augment.erase.boxes(each, asked, SIZE) for each in drawn])}
        if fill == "noise":
            arrays["erase_seed"] = np.array([each.seed for each in drawn], np.uint32)
        views = _in_step({"image": np.stack([view] * len(drawn)), **arrays})
        return [(f"draw {n + 1}", each) for n, each in enumerate(views)]

    return [
        Row(
            "erase",
            'erase=0.5, erase_fill="mean"',
            "Probability: a rectangle in the data's mean colour (Zhong 2020).",
            shown("mean", erase=1.0),
        ),
        Row("erase, noise", 'erase=0.5, erase_fill="noise"', "The same with noise.", shown("noise", erase=1.0)),
        Row("cutout", "cutout=64", "Pixels: a square around a random place (DeVries 2017).", shown("mean", cutout=64)),
    ]


def _mixing(image: np.ndarray, partner: np.ndarray) -> list[Row]:
    both = np.stack([augment.view(each, SIZE, "crop") for each in (image, partner)])
    shares = (0.9, 0.7, 0.5, 0.3)

    def mixed(share: float, weight: float, box: jax.Array) -> np.ndarray:
        return _in_step({"image": both}, mixing.Mix(jnp.float32(share), jnp.float32(weight), box))[0]

    nowhere = jnp.zeros(4, jnp.int32)
    boxes = [mixing.cut_box(share, y, x, SIZE) for share, y, x in zip(shares, (40, 120, 96, 110), (60, 130, 70, 96), strict=True)]
    kept = [float(mixing.kept_share(box, SIZE)) for box in boxes]
    return [
        Row(
            "MixUp",
            "mixup=0.2",
            "Alpha of the Beta distribution of the share (Zhang 2018).",
            [(f"share {s}", mixed(s, s, nowhere)) for s in shares],
        ),
        Row(
            "CutMix",
            "cutmix=1.0",
            "Likewise; the share is what the box leaves (Yun 2019).",
            [(f"share {share:.2f}", mixed(share, 1.0, box)) for share, box in zip(kept, boxes, strict=True)],
        ),
    ]


def _in_step(batch: Mapping[str, np.ndarray], mix: mixing.Mix | None = None) -> np.ndarray:
    """What the training step makes of a batch, see `batch_augment.augmented`; rounded to uint8 [B, H, W, 3]."""
    arrays = {name: jnp.asarray(array) for name, array in batch.items()}
    out = np.asarray(batch_augment.augmented(arrays, _MEAN, _STD, mix))
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def _drawn(image: np.ndarray, count: int, **fields: Any) -> list[np.ndarray]:
    return [augment.view(image, SIZE, "crop", _fields(**fields), view_rng(0, "gallery", n)) for n in range(count)]


def _fields(**fields: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(**(default_config().augment.to_dict() | fields))


def _source(view: np.ndarray) -> str:
    return "data:image/webp;base64," + pages.thumbnail(view, SIZE[0])
