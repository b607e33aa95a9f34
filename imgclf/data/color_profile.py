"""Colour profiles (ICC): pixels of a wide gamut, such as phones' photos in Display P3, as the sRGB that all else is taken for."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_SAME = 2  # grey levels: a profile that changes none by more is sRGB by another name
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Converts uint8 [h, w, 3] by an RGB or grey profile; one that fits neither, or is damaged, changes nothing."""
    if not profile:
        return pixels
    table = _levels(profile)
    if table is not None:
        return table[pixels]
    transform = _transform(profile)
    return pixels if transform is None else np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), transform))


def cmyk_to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Converts an image of mode CMYK by its profile, or without one as Pillow does."""
    transform = _cmyk(profile) if profile else None
    converted = None if transform is None else ImageCms.applyTransform(image, transform)
    return image.convert("RGB") if converted is None else converted


@functools.lru_cache(64)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """From an RGB profile to sRGB; None where that changes nothing."""
    transform = _built(profile, "RGB")
    if transform is None:
        return None
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    probe = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    after = np.asarray(ImageCms.applyTransform(Image.fromarray(probe), transform))
    return None if np.abs(after.astype(int) - probe).max() <= _SAME else transform


@functools.lru_cache(64)
def _levels(profile: bytes) -> np.ndarray | None:
    """The grey level in sRGB, uint8 [256], of each level of a grey profile; None for other profiles, and where that changes nothing."""
    transform = _built(profile, "L")
    if transform is None:
        return None
    levels = np.arange(256, dtype=np.uint8)
    after = np.asarray(ImageCms.applyTransform(Image.fromarray(levels[None]), transform))[0, :, 0]
    return None if np.abs(after.astype(int) - levels).max() <= _SAME else after


@functools.lru_cache(8)
def _cmyk(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    return _built(profile, "CMYK")


def _built(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile for pixels of this mode to sRGB; None where the profile is damaged, or for other pixels."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != {"L": "GRAY"}.get(mode, mode):
            return None
        return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB", renderingIntent=_INTENT)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
