"""Which parameters a mesh splits, and over which of its axes."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.models.weights.conversion import nest
from imgclf.training import sharding
from imgclf.training.layout import Layout

SHAPES = {
    "backbone/conv/kernel": (3, 3, 64, 512),  # 1.1 MiB
    "backbone/bn/scale": (512,),
    "head/fc/kernel": (2048, 1024),  # 8 MiB
    "head/logits/kernel": (1024, 1030),
    "head/logits/bias": (1030,),
}


def specs(*, data=2, fsdp=1, model=1, classes=1030, rules=(), split_from_mb=4.0) -> dict[str, PartitionSpec]:
    options = default_config().mesh
    options.rules, options.split_from_mb = rules, split_from_mb
    shapes = SHAPES | {"head/logits/kernel": (1024, classes), "head/logits/bias": (classes,)}
    params = nest({path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in shapes.items()})
    layout = Layout.create(options, params, AbstractMesh((data, fsdp, model), sharding.AXES))
    return {split.path: split.spec for split in layout.splits}


def test_by_default_everything_is_whole():
    assert specs(data=8) == {}


def test_large_parameters_are_split_over_fsdp_at_their_largest_dimension():
    assert specs(fsdp=2) == {"head/fc/kernel": PartitionSpec("fsdp", None), "head/logits/kernel": PartitionSpec(None, "fsdp")}
    assert specs(fsdp=4)["head/logits/kernel"] == PartitionSpec("fsdp", None)  # 4 doesn't divide 1030
    assert specs(fsdp=2, split_from_mb=1.0)["backbone/conv/kernel"] == PartitionSpec(None, None, None, "fsdp")
    assert specs(fsdp=3) == {}


def test_the_heads_classes_are_split_over_model():
    found = specs(fsdp=2, model=2)
    assert found["head/logits/kernel"] == PartitionSpec("fsdp", "model")
    assert found["head/logits/bias"] == PartitionSpec("model")
    # classes that don't divide: each step splits them from what is kept by features
    assert specs(model=4)["head/logits/kernel"] == PartitionSpec("model", None)
    assert "head/logits/bias" not in specs(model=4)


def test_the_first_rule_that_matches_counts():
    rules = (("head/fc/.*", "-, model"), ("head/.*", "whole"), ("backbone/conv/.*", "auto"))
    assert specs(fsdp=2, model=2, rules=rules) == {"head/fc/kernel": PartitionSpec(None, "model")}


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (("head/fd/kernel", "whole"), r"'head/fd/kernel' that matches no parameter; near misses: head/fc/kernel"),
        (("head/fc/kernel", "fsdp"), r"each of its 2 dimensions"),
        (("head/fc/kernel", "fsdp, fsdp"), r"each axis once"),
        (("head/fc/kernel", "fsdq, -"), r"'fsdq' is none of"),
        (("head/logits/.*", "-, model"), r"1030 does not divide among the 4 of 'model'"),
    ],
)
def test_a_rule_that_does_not_fit_is_told(rule, told):
    with pytest.raises(UserError, match=told):
        specs(model=4, rules=(rule,))


def test_what_belongs_to_a_parameter_lies_as_it_does():
    options = default_config().mesh
    params = {"head": {"fc": {"kernel": np.zeros((2048, 1024), np.float32)}}}
    layout = Layout.create(options, params, AbstractMesh((1, 2, 1), sharding.AXES))
    tree = {"mu": params, "factored": {"head": {"fc": {"kernel": np.zeros(2048)}}}, "count": np.zeros(())}
    found = jax.tree.map(lambda own: own.spec, layout.shardings(tree))
    assert found["mu"]["head"]["fc"]["kernel"] == PartitionSpec("fsdp", None)
    assert found["factored"]["head"]["fc"]["kernel"] == found["count"] == PartitionSpec()


class Device:
    def __init__(self, process_index: int, id: int):
        self.process_index, self.id = process_index, id


def test_a_mesh_that_does_not_divide_names_those_that_do():
    sizes = default_config().mesh
    sizes.fsdp = 3
    with pytest.raises(
        UserError, match=r"mesh.fsdp=3 and config.mesh.model=1 do not divide 8 devices; fsdp times model must be 1, 2, 4 or 8"
    ):
        sharding.create_mesh([Device(0, i) for i in range(8)], sizes)
