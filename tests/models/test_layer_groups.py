"""Layer groups: what freezing by stage and decaying learning rates treat as one layer. tests/training/ has what is made of them."""

import pytest
from flax import nnx

from imgclf.models import layer_groups, registry


def abstract(name, **options):
    return nnx.eval_shape(lambda: registry.builder(name)(**options, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet18", ("backbone/stage4/0", "backbone/stage4/1")),
        ("vgg16", ("backbone/block5",)),
        ("convnext_micro", ("backbone/downsample2", "backbone/stage2/0")),
        # a Vision Transformer of 12 blocks: four stages of three
        ("vit_small_patch16_224", (*(f"backbone/blocks/{i}" for i in (9, 10, 11)), "backbone/norm")),
        ("vit_small_patch14_reg4_dinov2", (*(f"backbone/blocks/{i}" for i in (9, 10, 11)), "backbone/norm")),
        ("vit_tiny", ("backbone/blocks/1", "backbone/norm")),
        ("vit_tiny_dinov3", ("backbone/blocks/1", "backbone/norm")),
        ("vit_tiny_siglip", ("backbone/blocks/1", "backbone/norm", "backbone/attention_pool")),
    ],
)
def test_the_last_stage(name, last):
    assert layer_groups.last_stage(abstract(name)) == last


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("vit_tiny", [("embedding",), ("blocks/0",), ("blocks/1", "norm")]),
        ("vit_tiny_siglip", [("embedding",), ("blocks/0",), ("blocks/1", "norm"), ("attention_pool",)]),
    ],
)
def test_each_block_of_a_vision_transformer_is_a_group_behind_the_embedding(name, groups):
    found = [group.paths for group in layer_groups.layer_groups(abstract(name))]
    assert found == [tuple(f"backbone/{path}" for path in group) for group in groups]


def test_every_parameter_of_a_vision_transformer_is_in_a_group():
    backbone = abstract("vit_tiny_dinov2")
    depths = layer_groups.depths(backbone)
    found = {}
    for path, _ in nnx.to_flat_state(nnx.state(backbone)):
        name = "/".join(map(str, ("backbone", *path)))
        found[name] = depths[layer_groups.group_of(name, depths)]
    assert found["backbone/embedding/position"] == found["backbone/embedding/registers"] == found["backbone/embedding/patch/kernel"] == 3
    assert found["backbone/blocks/0/attention/qkv/kernel"] == 2
    assert found["backbone/blocks/1/layer_scale2/scale"] == found["backbone/norm/scale"] == 1
