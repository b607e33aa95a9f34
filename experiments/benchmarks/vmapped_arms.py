"""Training steps of several arms at once, by vmap, beside the same arms in turn, all of them through one compiled step.

The arms differ in learning rate and seed and share their batches. A small CNN at 32 px (S0's: three convolutions, one dense layer), or a
head on cached features, as probe.solver=minibatch trains it. Both sides take their steps in one process, in alternating rounds.

    python experiments/benchmarks/vmapped_arms.py cnn --arms 4
    python experiments/benchmarks/vmapped_arms.py linear --arms 8        a linear head on 1,280 features
    python experiments/benchmarks/vmapped_arms.py mlp --arms 8           a hidden layer of 256
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import models
from imgclf.config import default_config
from imgclf.methods import minibatch_head, resolve
from imgclf.models.network import Network
from imgclf.runtime.platform_flags import restart_with_huge_pages
from imgclf.training import freeze, phases, schedules, sharding
from imgclf.training.state import split_model

CLASSES, FEATURES, TOTAL = 10, 1280, 1000


def arm(what: str, number: int):
    """The phase and the first state of an arm."""
    config = default_config()
    config.seed, config.optimizer.learning_rate = number, 1e-3 * 2**number
    config.data.image_size, config.data.mean, config.data.std = (32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    if what == "cnn":
        config.model.cnn.widths, config.model.cnn.dense, config.model.cnn.norm = (32, 32, 64), (64,), "none"
        config.model.cnn.flatten, config.model.cnn.dropout = True, 0.5
        config = resolve.resolve(config, CLASSES)
        model = models.create(config, CLASSES)
    else:
        config.data.mean, config.data.std = (0.0,), (1 / 255,)
        config.model.name, config.model.head.kind = "mobilenet_v2", what
        model = Network(minibatch_head.Vectors(FEATURES), models.create(resolve.resolve(config, CLASSES), CLASSES).head)
    mesh = sharding.create_mesh()
    schedule = schedules.create_schedule(config, TOTAL, 100.0)
    (phase,) = phases.create(config, model, freeze.create_freezing(config, model, TOTAL, 100.0), schedule, TOTAL, None, mesh)
    return phase, phase.first_state(*split_model(model)[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cnn", "linear", "mlp"))
    parser.add_argument("--arms", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50, help="of each arm in a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    shape, kind = ((32, 32, 3), np.uint8) if arguments.what == "cnn" else ((1, 1, FEATURES), np.float32)
    image = jnp.asarray(rng.integers(0, 255, (arguments.batch_size, *shape)).astype(kind))
    batch = {"image": image, "label": jnp.asarray(rng.integers(0, CLASSES, arguments.batch_size, np.int32))}
    arms = [arm(arguments.what, number) for number in range(arguments.arms)]
    assert len({id(phase.compiled) for phase, _ in arms}) == 1
    together = jax.jit(jax.vmap(arms[0][0].compiled, in_axes=(0, None, 0)), donate_argnums=0)
    numbers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(phase.scalars for phase, _ in arms))
    states = [jax.tree.map(jnp.array, state) for _, state in arms]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def in_turn(steps: int) -> float:
        start = time.perf_counter()
        for i, (phase, _) in enumerate(arms):
            for _ in range(steps):
                states[i], metrics = phase.step(states[i], batch)
            jax.block_until_ready(metrics)
        return (time.perf_counter() - start) / steps

    def at_once(steps: int) -> float:
        nonlocal stacked
        start = time.perf_counter()
        for _ in range(steps):
            stacked, metrics = together(stacked, batch, numbers)
        jax.block_until_ready(metrics)
        return (time.perf_counter() - start) / steps

    compile_turn, compile_once = in_turn(1), at_once(1)
    difference = max(
        float(jnp.abs(a[i] - b).max())
        for i, state in enumerate(states)
        for a, b in zip(jax.tree.leaves(stacked.params), jax.tree.leaves(state.params), strict=True)
    )
    pairs = [(in_turn(arguments.steps), at_once(arguments.steps)) for _ in range(arguments.rounds)]
    ratios = sorted(turn / once for turn, once in pairs)
    turn, once = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"{arguments.what}, {arguments.arms} arms, batch {arguments.batch_size}: {turn:.2f} ms a step of all in turn, {once:.2f} ms vmapped"
    )
    print(f"vmapped is {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) times as fast, {len(pairs)} pairs")
    print(f"first step with its compilation: {compile_turn:.1f} s, {compile_once:.1f} s; parameters differ by {difference:.1g} after it")


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
