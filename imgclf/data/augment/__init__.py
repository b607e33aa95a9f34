"""Augmentation: what is random about a view (`draws`), its one resample (`geometry`) and what follows it, on the host and in the step.

A view is drawn (`draw`), turned into a matrix (`matrix`) and made (`render`); `view` does the three. The order, from the image to the
batch that the model sees:

    host, `render`      1. the resample: crop, resize, affine map, flips and the policy's geometry, in one matrix
                        2. the policy's pixel operations, in the order drawn
                        3. the pixel operations of the config
    training step       4. colour: one affine matrix per image, clipped to 0..255
                        5. erasing, with the mean colour (0 after normalisation) or noise
                        6. MixUp or CutMix, with the labels
                        7. normalisation

With mode=keras_legacy, the first is ImageDataGenerator's resize, warp, flips and brightness (`keras_legacy`) instead.

Every kind reads its own stream (`view_rng`), so that switching one on leaves the draws of the others as they were. A kind is a module
with a frozen dataclass of its parameters and a function that draws it, or None, from its stream; it is a field of `Draw`, set in
`draw` by `sibling(rng, KIND)`, asked for in `is_neutral`, and applied in `render` or in the step. A pixel operation is a function and an
entry of `FIELDS`, both in `pixels`, and a field in config/fields.py: drawing, range, order and gallery follow from these.
"""

from imgclf.data.augment import color, erase, pixels, policies
from imgclf.data.augment.draws import COLOR, ERASE, GEOMETRY, PIXELS, POLICY, Draw, draw, evaluation, is_neutral, sibling, view_rng
from imgclf.data.augment.geometry import BORDERS, INTERPOLATIONS, RESIZE_MODES, Size, matrix, reduction
from imgclf.data.augment.views import VIEWS, Preprocessing, View, render, view

__all__ = [
    "BORDERS",
    "COLOR",
    "ERASE",
    "GEOMETRY",
    "INTERPOLATIONS",
    "PIXELS",
    "POLICY",
    "RESIZE_MODES",
    "VIEWS",
    "Draw",
    "Preprocessing",
    "Size",
    "View",
    "color",
    "draw",
    "erase",
    "evaluation",
    "is_neutral",
    "matrix",
    "pixels",
    "policies",
    "reduction",
    "render",
    "sibling",
    "view",
    "view_rng",
]
