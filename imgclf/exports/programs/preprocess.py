"""From an image file to what the network takes, with Pillow and NumPy alone; export.json beside this file says how.

    from preprocess import load
    batch = np.stack([load("photo.jpg")])  # uint8 [1,H,W,3]

golden/ has pictures with the result for them: `python preprocess.py` compares, and tells the greatest difference in grey levels.
"""

import io
import json
import math
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

Shown = dict[str, Any]
HERE = pathlib.Path(__file__).parent
SHOWN: Shown = json.loads((HERE / "export.json").read_text(encoding="utf-8"))["preprocessing"] if (HERE / "export.json").exists() else {}


def load(file: Any, shown: Shown = SHOWN) -> np.ndarray:
    """A path, an open file or a Pillow image to uint8 [H,W,3]: upright, over white, in sRGB, of the network's size."""
    image = file if isinstance(file, Image.Image) else Image.open(file)
    return resized(pixels_of(image, shown), shown)


def pixels_of(image: Image.Image, shown: Shown) -> np.ndarray:
    """All pixels of an image, uint8 [h,w,3]."""
    profile = image.info.get("icc_profile") if shown["color_profile"] else None
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # more than 8 bits
        black, white = value_range(image, shown)
        levels = (np.asarray(image).astype(np.float64) - black) * (255 / (white - black))
        return np.repeat(np.rint(np.clip(levels, 0, 255)).astype(np.uint8)[:, :, None], 3, 2)
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    image = in_srgb(image, profile)
    if alpha is not None:
        image.putalpha(alpha)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.asarray(image)


def value_range(image: Image.Image, shown: Shown) -> tuple[float, float]:
    """Black and white of an image of more than 8 bits: as the training images had them, else by the values that it has."""
    if shown["value_range"]:
        return shown["value_range"]
    values = np.asarray(image)
    known = {kind: (black, white) for kind, black, white in shown["kinds"]}
    if values.dtype.name in known:
        return known[values.dtype.name]
    low, high, real = float(values.min()), float(values.max()), values.dtype.kind == "f"
    if real and 0.25 <= max(-low, high) <= 1.05:
        return 0.0 if low >= -0.05 else -1.0, 1.0
    if low < 0:
        return -power(-low), power(high + 1) - (0 if real else 1) if high > 0 else 0.0
    most = math.inf if real else np.iinfo(values.dtype).max
    common = (bits for bits in (8, 10, 12, 14, 16) if 2 ** (bits - 2) <= high <= 2**bits - 1 <= most)
    if bits := next(common, 0):
        return 0.0, 2.0**bits - 1
    return 0.0, power(high) if real else max(1.0, power(high + 1) - 1)


def power(value: float) -> float:
    """The least power of two that is not below a value; 1 for 0."""
    return 2.0 ** math.ceil(math.log2(value)) if value > 0 else 1.0


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image in RGB, converted by its colour profile, unless that is sRGB by another name."""
    mode = {"CMYK": "CMYK", "L": "L", "LA": "L"}.get(image.mode, "RGB")
    if not profile:
        return image.convert("RGB")
    for wanted in dict.fromkeys((mode, "RGB", "L")):
        try:
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            turn = ImageCms.buildTransform(source, target, wanted, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
        except (ImageCms.PyCMSError, OSError):
            continue  # a damaged profile, or one for other pixels
        if wanted == "CMYK":
            return turned(image, turn)
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        probe = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
        probe = probe if wanted == "RGB" else np.arange(256, dtype=np.uint8)[None]
        after = np.asarray(turned(Image.fromarray(probe), turn)).astype(int)
        if np.abs(after - probe.reshape(*after.shape[:2], -1)).max() <= 2:
            break
        return turned(image.convert(wanted), turn)
    return image.convert("RGB")


def turned(image: Image.Image, turn: ImageCms.ImageCmsTransform) -> Image.Image:
    """The image in other colours."""
    out = ImageCms.applyTransform(image, turn)
    assert out is not None  # it is None where an image is changed in place
    return out


def resized(pixels: np.ndarray, shown: Shown) -> np.ndarray:
    """uint8 [h,w,3] to [H,W,3] by the centre crop, the squash or the padding of the training."""
    (h, w), (rows, columns) = pixels.shape[:2], shown["size"]
    if shown["mode"] == "keras_legacy":
        return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.NEAREST))
    bicubic = shown["interpolation"] == "bicubic"
    height, width = rows, columns
    part: tuple[float, float, float, float] = (0, 0, h, w)
    if shown["resize"] == "crop":
        part = (published_crop if bicubic else crop)(h, w, rows, columns, shown["crop_fraction"])
    elif shown["resize"] == "pad":
        scale = min(rows / h, columns / w)
        height, width = min(rows, max(1, round(h * scale))), min(columns, max(1, round(w * scale)))
    y, x, part_h, part_w = part
    if bicubic:
        box = (x, y, min(x + part_w, w), min(y + part_h, h))
        out = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box, reducing_gap=3.0))
    else:
        out = pixels[int(y) : int(y + part_h), int(x) : int(x + part_w)]
        for axis, n in ((1, width), (0, height)):
            out = averaged(out, n, axis) if n < out.shape[axis] else out
        out = np.rint(out)
        for axis, n in ((1, width), (0, height)):
            out = interpolated(out, n, axis) if n > out.shape[axis] else out
        out = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    return padded(out, rows, columns, shown)


def crop(h: int, w: int, rows: int, columns: int, fraction: float) -> tuple[int, int, int, int]:
    """The middle of the image, as much as covers the output, in whole pixels."""
    scale = fraction * min(h / rows, w / columns)
    height, width = min(h, max(1, round(rows * scale))), min(w, max(1, round(columns * scale)))
    return (h - height) // 2, (w - width) // 2, height, width


def published_crop(h: int, w: int, rows: int, columns: int, fraction: float) -> tuple[float, float, float, float]:
    """The middle of the resized image, as timm and torchvision crop it, in pixels of the whole image."""
    least = math.floor(rows / fraction + 1e-9), math.floor(columns / fraction + 1e-9)
    if h * least[1] <= w * least[0]:
        whole = least[0], max(least[1], int(least[0] * w / h))
    else:
        whole = max(least[0], int(least[1] * h / w)), least[1]
    top, left = round((whole[0] - rows) / 2), round((whole[1] - columns) / 2)
    return top * h / whole[0], left * w / whole[1], rows * h / whole[0], columns * w / whole[1]


def averaged(pixels: np.ndarray, n: int, axis: int) -> np.ndarray:
    """Fewer pixels along an axis, each the mean of the area that it covers."""
    pixels = np.moveaxis(pixels, axis, 0)
    size = len(pixels)
    edges = np.linspace(0, size, n + 1)
    before = np.minimum(np.floor(edges).astype(int), size - 1)
    sums = np.concatenate([np.zeros_like(pixels[:1], np.float64), np.cumsum(pixels, 0, np.float64)])
    inside = (edges - before).reshape(-1, *[1] * (pixels.ndim - 1))
    return np.moveaxis(np.diff(sums[before] + inside * pixels[before], axis=0) * (n / size), 0, axis)


def interpolated(pixels: np.ndarray, n: int, axis: int) -> np.ndarray:
    """More pixels along an axis, by linear interpolation between the centres of those that there are."""
    size = pixels.shape[axis]
    place = np.clip((np.arange(n) + 0.5) * (size / n) - 0.5, 0, size - 1)
    low = np.floor(place).astype(int)
    share = (place - low).reshape([-1 if i == axis else 1 for i in range(pixels.ndim)])
    return pixels.take(low, axis) * (1 - share) + pixels.take(np.minimum(low + 1, size - 1), axis) * share


def padded(pixels: np.ndarray, rows: int, columns: int, shown: Shown) -> np.ndarray:
    """Places the image in the middle of the output."""
    h, w = pixels.shape[:2]
    top, left = (rows - h) // 2, (columns - w) // 2
    edges = ((top, rows - h - top), (left, columns - w - left), (0, 0))
    if shown["fill"] == "constant":
        return np.pad(pixels, edges, constant_values=shown["fill_value"])
    return np.pad(pixels, edges, "edge" if shown["fill"] == "nearest" else "symmetric" if shown["fill"] == "reflect" else "wrap")


if __name__ == "__main__":
    for tensor in sorted((HERE / "golden").glob("*.npy")):
        picture = next(path for path in tensor.parent.glob(f"{tensor.stem}.*") if path != tensor)
        print(picture.name, np.abs(load(picture).astype(int) - np.load(tensor)).max())
