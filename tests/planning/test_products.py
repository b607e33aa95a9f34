"""The work of convolutions and matrix products, against numbers counted by hand and by trying every place."""

import itertools

import pytest
from test_hlo import read

from imgclf.planning import hlo, products, traffic

# 3x3 convolutions of 32 images of 64x64 in "SAME" padding, 3 to 64 channels, then, at stride 2, 64 to 128. Three taps of a kernel meet
# 3 · 64 − 2 places along an axis, at stride 2, where padding is behind only, 3 · 32 − 1. The first has no gradient of its input.
FIRST, SECOND = 2 * 32 * 3 * 64 * 190**2, 2 * 32 * 64 * 128 * 95**2
DOTS = 3 * 2 * 32 * 128 * 1000


def counted(name: str) -> list[products.Product]:
    module = read(name)
    return [product for product, times in products.products(module, traffic.all_parts(module)) for _ in range(times)]


def test_a_tpus_step_is_counted_as_by_hand():
    found = counted("v5e_2x2_step")
    convolutions = [product for product in found if product.kind == "convolution"]
    assert sum(product.flops for product in convolutions) == 2 * FIRST + 3 * SECOND
    assert {product.dtype for product in convolutions} == {"bf16"}
    dots = [product for product in found if product.kind == "dot"]
    assert sum(product.flops for product in dots) == DOTS
    assert sorted((product.dtype, product.passes) for product in dots) == [("bf16", 1), ("bf16", 1), ("f32", 6)]


def test_calls_of_cudnn_are_counted_by_the_convolution_that_they_are_part_of():
    found = counted("h100_8_step")
    convolutions = sorted(product.flops for product in found if product.kind == "convolution")
    padded = 2 * 32 * 64 * 128 * 96**2  # the padding behind is written out there, so that every tap meets a place
    assert convolutions == [FIRST, FIRST, padded, padded, padded]
    assert sum(product.flops for product in found if product.kind == "dot") == DOTS + 2 * 32 * 128 * 24  # filled up to 1,024 classes


def test_only_places_inside_of_the_image_count():
    """Every tap is tried at every place of a row that is written out with its zeros."""
    windows = itertools.product(range(1, 7), range(1, 4), range(1, 4), range(1, 4), range(1, 3), range(3), range(3))
    for image, size, stride, image_step, kernel_step, before, behind in windows:
        row = [0] * before
        for place in range(image):
            row += [0] * (image_step - 1 if place else 0) + [1]
        row += [0] * behind
        starts = range(0, len(row) - (size - 1) * kernel_step, stride)
        expected = sum(row[start + tap * kernel_step] for start in starts for tap in range(size))
        assert products._pairs(image, len(starts), (size, stride, image_step, kernel_step, before)) == expected


@pytest.mark.parametrize(
    ("line", "flops"),
    [
        ("f32[8,5]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}", 2 * 8 * 5 * 7),
        ("f32[8,4,4,6]{3,2,1,0} convolution(%c, %d), window={size=1x1}, dim_labels=b01f_01io->b01f, feature_group_count=6", 2 * 8 * 16 * 6),
    ],
)
def test_matrix_products_and_grouped_convolutions(line, flops):
    text = f"""HloModule one
ENTRY %main (a: f32[8,7]) -> f32[8,5] {{
  %a = f32[8,7]{{1,0}} parameter(0)
  %b = f32[7,5]{{1,0}} parameter(1)
  %c = f32[8,4,4,6]{{3,2,1,0}} parameter(2)
  %d = f32[1,1,1,6]{{3,2,1,0}} parameter(3)
  ROOT %out = {line}
}}
"""
    module = hlo.parse(text)
    assert products.products(module, {"main": 3}) == [(products.product_of(module.entry, module.entry.root), 3)]
    assert products.product_of(module.entry, module.entry.root).flops == flops
