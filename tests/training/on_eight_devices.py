"""What a training's programs ask of 8 simulated CPU devices, found out in a process of its own, which writes it down."""

import json
import os
import re
from pathlib import Path


def main(out: Path) -> None:
    """In a process where JAX is not at work yet."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    from imgclf.runtime import compilation_cache

    compilation_cache.enable()
    out.write_text(json.dumps({"collectives": {group: collectives_of_batch_norm(group) for group in (0, 2)}}))


def collectives_of_batch_norm(group: int) -> int:
    """How often the devices wait for each other in a step of two convolutions with BatchNorm over 16 images, 2 on each device."""
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from jax.sharding import NamedSharding, PartitionSpec

    from imgclf.models import forms, layers
    from imgclf.training import sharding
    from imgclf.training.state import Tree, split_model

    mesh = sharding.create_mesh()
    made = nnx.List([layers.Conv(3, 4, 3, rngs=nnx.Rngs(0)), layers.BatchNorm(4, rngs=nnx.Rngs(0))])
    made += [layers.Conv(4, 4, 3, rngs=nnx.Rngs(0)), layers.BatchNorm(4, rngs=nnx.Rngs(0))]
    layers.group_batch_norms(made, group)
    graphdef, params, batch_stats = split_model(made)

    @forms.on_devices_of(mesh)
    def step(params: Tree, batch_stats: Tree, image: jax.Array) -> tuple[Tree, Tree]:
        def loss(params: Tree) -> tuple[jax.Array, Tree]:
            network = nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats))
            maps = image
            for conv, norm in (network[:2], network[2:]):
                maps = jax.nn.relu(norm(conv(maps), train=True))
            return jnp.square(maps).mean(), nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

        return jax.grad(loss, has_aux=True)(params)

    whole = NamedSharding(mesh, PartitionSpec())
    image = jax.ShapeDtypeStruct((16, 8, 8, 3), jnp.float32, sharding=sharding.batch_sharding(mesh))
    program = jax.jit(step, in_shardings=(whole, whole, image.sharding), out_shardings=whole).lower(params, batch_stats, image).compile()
    return len(set(re.findall(r"channel_id=(\d+)", program.as_text())))
