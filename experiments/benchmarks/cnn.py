"""One training step of the tutorial CNN (configs/openimages_cnn.py: 128x128, RMSprop, dropout on) as `run.py` takes it, in images/s.

    python experiments/benchmarks/cnn.py
    python experiments/benchmarks/cnn.py --peer "TORCH experiments/benchmarks/torch_peer.py tutorial cnn --train --size 128 --steps 20"

A peer is any command that prints `X img/s`. Ours and the peer's run in turn, each in a process of its own, and the median
of the pairs' ratios is what to quote: the machine's own speed changes by the minute.
Cost: 15 s a pair on 2 quiet CPU cores.
"""

import argparse
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

from peers import alternate

ROOT = Path(__file__).resolve().parents[2]


def prepared(batch_size: int, precision: str) -> Callable[[int], None]:
    """Returns what makes so many training steps and waits for them; uint8 images are on the device already."""
    sys.path.insert(0, str(ROOT))
    import jax
    import numpy as np
    import optax

    import imgclf  # noqa: F401  sets XLA's flags before JAX starts
    from imgclf import models
    from imgclf.methods import resolve
    from imgclf.training import freeze, phases, sharding
    from imgclf.training.state import split_model

    config = runpy.run_path(str(ROOT / "configs" / "openimages_cnn.py"))["get_config"]("unread")
    config.loader.batch_size = batch_size
    config.model.precision = precision
    config = resolve.resolve(config, 2)
    model, mesh = models.create(config, 2), sharding.create_mesh()
    schedule = optax.constant_schedule(config.optimizer.learning_rate)
    (phase,) = phases.create(config, model, freeze.create_freezing(config, model, 1000, 100.0), schedule, 1000, None, mesh)
    state = phase.first_state(*split_model(model)[1:])
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (batch_size, *config.data.image_size, 3), np.uint8)
    batch = sharding.put_batch({"image": image, "label": rng.integers(0, 2, batch_size, np.int32)}, mesh)

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = phase.step(state, batch)
        jax.block_until_ready((state, metrics))

    return run


def measure(batch_size: int, precision: str, steps: int) -> float:
    """Returns images/s over `steps` training steps, after four to warm up."""
    run = prepared(batch_size, precision)
    run(4)
    start = time.perf_counter()
    run(steps)
    return batch_size * steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--peer", default="", help="command to compare with")
    arguments = parser.parse_args()
    if not arguments.peer:
        speed = measure(arguments.batch_size, arguments.precision, arguments.steps)
        print(f"imgclf cnn {arguments.precision} batch {arguments.batch_size}: {speed:.1f} img/s")
        return
    options = [f"--batch_size={arguments.batch_size}", f"--precision={arguments.precision}", f"--steps={arguments.steps}"]
    alternate([sys.executable, __file__, *options], arguments.peer, arguments.pairs, r"([0-9.]+) img/s")


if __name__ == "__main__":
    main()
