"""Does a training step on this machine's accelerator do what it does on its CPU, and the same bits twice?

    python experiments/accelerator.py            # a small variant of every family
    python experiments/accelerator.py resnet50 --size 64

One SGD step on the same random pictures from the same random parameters, with products in full float32 on both. For each network it prints
the relative difference of the losses, and of the parameters' updates (the largest over the tensors of ||on it - on the CPU|| / ||on the
CPU||), and whether a second run gave the same bits. Layers have other forms on a CPU than elsewhere (`imgclf.models.forms`), which is what
this compares. Exit code 1 where an update is off by more than `--limit`. Cost: a few seconds of compilation a network and device.
"""

import argparse
import sys

import jax
import numpy as np

from imgclf import models
from imgclf.config import default_config
from imgclf.methods import resolve
from imgclf.training import freeze, phases, sharding
from imgclf.training.state import split_model

CLASSES = 10
TINY = (
    *(name for name in models.NAMES if "_tiny" in name and not name.startswith("convnext")),
    "convnext_micro",
    "convnextv2_micro",
    "cnn",
)


def updates(name: str, size: int, device: jax.Device) -> tuple[float, list[np.ndarray]]:
    """The loss and each parameter's update by one step on a device; float32."""
    config = default_config()
    config.model.name, config.data.image_size = name, (size, size)
    config.model.precision = "f32"
    config.optimizer.name, config.loader.batch_size = "sgd", 8
    config = resolve.resolve(config, CLASSES)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, size, size, 3), np.uint8)
    label = rng.integers(0, CLASSES, 8, np.int32)
    with jax.default_device(device):
        mesh = sharding.create_mesh([device])
        model = models.create(config, CLASSES)
        _, params, batch_stats = split_model(model)
        before = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
        freezing = freeze.create_freezing(config, model, 1000, 100.0)
        (phase,) = phases.create(config, model, freezing, lambda _: 1e-2, 1000, None, mesh)
        state = phase.first_state(params, batch_stats)
        state, metrics = phase.step(state, sharding.put_batch({"image": image, "label": label}, mesh))
        after = [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
    return float(metrics["train_loss"]), [new - old for old, new in zip(before, after, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=TINY, metavar="NAME", help="networks; the small variant of every family by default")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--limit", type=float, default=1e-3, help="the largest relative difference of an update that is no error")
    arguments = parser.parse_args()
    accelerator, cpu = jax.devices()[0], jax.devices("cpu")[0]
    print(f"{accelerator.device_kind} beside the CPU, jax {jax.__version__}")
    if accelerator.platform == "cpu":
        sys.exit("JAX finds no accelerator here: there is nothing to compare.")
    far = []
    with jax.default_matmul_precision("highest"):
        for name in arguments.names:
            loss, there = updates(name, arguments.size, accelerator)
            _, again = updates(name, arguments.size, accelerator)
            expected, here = updates(name, arguments.size, cpu)
            same = all(np.array_equal(one, other) for one, other in zip(there, again, strict=True))
            largest = max(float(np.linalg.norm(one)) for one in here)
            off = max(
                float(np.linalg.norm(one - other) / max(np.linalg.norm(other), 1e-4 * largest))
                for one, other in zip(there, here, strict=True)
            )
            bits = "same bits" if same else "other bits"
            print(f"{name}: loss {abs(loss - expected) / abs(expected):.1e}, update {off:.1e}, {bits} in a second run", flush=True)
            far += [name] * (off > arguments.limit)
    if far:
        sys.exit(f"Further off than {arguments.limit:g}: {', '.join(far)}.")


if __name__ == "__main__":
    main()
