"""A training step with part of the network frozen, beside the same step with nothing frozen: the ratio of their times.

    python experiments/benchmarks/freezing.py vgg16 first_15_layers
    python experiments/benchmarks/freezing.py mobilenet_v2 head

Both steps are taken in turn, in one process; the median of the pairs' ratios is what to quote. Cost: a minute on 2 quiet CPU cores.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import models
from imgclf.config import default_config
from imgclf.methods import resolve
from imgclf.training import freeze, phases, schedules, sharding
from imgclf.training.state import split_model

CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=models.NAMES, metavar="NAME")
    parser.add_argument("preset", help="of config.freeze")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=9)
    arguments = parser.parse_args()
    config = default_config()
    config.model.name, config.data.image_size = arguments.name, (arguments.size, arguments.size)
    config = resolve.resolve(config, CLASSES)
    model = models.create(config, CLASSES)
    mesh = sharding.create_mesh()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (arguments.batch_size, arguments.size, arguments.size, 3), np.uint8)
    batch = sharding.put_batch({"image": images, "label": rng.integers(0, CLASSES, arguments.batch_size, np.int32)}, mesh)
    schedule = schedules.create_schedule(config, 1000, 100.0)
    steps, states = {}, {}
    for preset in ("none", arguments.preset):
        config.freeze.preset = preset
        (phase,) = phases.create(config, model, freeze.create_freezing(config, model, 1000, 100.0), schedule, 1000, None, mesh)
        _, params, batch_stats = split_model(model)
        steps[preset] = phase.step
        states[preset] = jax.tree.map(jnp.array, phase.first_state(params, batch_stats))

    def seconds(preset: str) -> float:
        start = time.perf_counter()
        states[preset], metrics = steps[preset](states[preset], batch)
        jax.block_until_ready((states[preset], metrics))
        return time.perf_counter() - start

    for preset in steps:
        seconds(preset)
    pairs = [(seconds("none"), seconds(arguments.preset)) for _ in range(arguments.pairs)]
    ratios = sorted(full / part for full, part in pairs)
    full, part = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"{arguments.name}, {arguments.size} px, batch {arguments.batch_size}: {full:.0f} ms with nothing frozen, {part:.0f} ms with "
        f"{arguments.preset}: {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) times as fast"
    )


if __name__ == "__main__":
    main()
