"""Images/s of a model's pooled features, or of one SGD training step, at 224 px, and the process's peak memory.

    python experiments/benchmarks/models.py resnet50
    python experiments/benchmarks/models.py vgg16 --peer "TORCH experiments/benchmarks/torch_peer.py torchvision vgg16"

A peer is any command that prints `X img/s`; torch_peer.py is one, of timm's and torchvision's networks. Cost: half a minute a pair on 2
quiet CPU cores. On a machine that others keep busy, where threads wait for each other, compare one thread of each by its CPU time:

    taskset -c 0 python experiments/benchmarks/models.py convnext_nano --clock cpu --peer \
        "python experiments/benchmarks/torch_peer.py timm convnext_nano --threads 1 --clock cpu"
"""

import argparse
import functools
import resource
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from peers import alternate
from rich.console import Console

import imgclf
from imgclf import models
from imgclf.config import default_config
from imgclf.methods import resolve
from imgclf.models.cpu import chosen, tuning
from imgclf.runtime import compilation_memory
from imgclf.runtime.platform_flags import restart_with_huge_pages
from imgclf.training import freeze, phases, sharding, step
from imgclf.training.state import split_model

CLASSES = 10


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def prepared(name: str, *, train: bool, precision: str, batch_size: int, size: int, tuned: bool = False) -> Callable[[], object]:
    """Returns what begins one step, or the features of one batch, and returns its result; uint8 images are on the device already."""
    config = default_config()
    config.model.name, config.model.precision, config.data.image_size = name, precision, (size, size)
    config.optimizer.name, config.loader.batch_size = "sgd", batch_size
    forms = imgclf.tune(config).table if tuned and train else None
    config = resolve.resolve(config, CLASSES)
    model = models.create(config, CLASSES)
    if forms is not None:
        model.forms = forms
    mesh = sharding.create_mesh()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (batch_size, size, size, 3), np.uint8)
    batch = sharding.put_batch({"image": image, "label": rng.integers(0, CLASSES, batch_size, np.int32)}, mesh)
    graphdef, params, batch_stats = split_model(model)
    if train:
        (phase,) = phases.create(config, model, freeze.create_freezing(config, model, 1000, 100.0), lambda _: 1e-3, 1000, None, mesh)
        state = phase.first_state(params, batch_stats)

        def run() -> object:
            nonlocal state
            state, metrics = phase.step(state, batch)
            return metrics
    else:
        from flax import nnx

        def features(params, batch_stats, image, table=None):
            merged = nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats))
            with chosen.using(table):
                return merged.features(step.normalize(image, config.data.mean, config.data.std))

        table = None
        if tuned:  # which imgclf itself does in training only
            with chosen.noting() as layers:
                jax.eval_shape(features, params, batch_stats, batch["image"])
            table = tuning.table_of(tuning.tune(list(layers), Console(quiet=True)))
        compiled = jax.jit(functools.partial(features, table=table))

        def run() -> object:
            return compiled(params, batch_stats, batch["image"])

    return run


def measure(run: Callable[[], object], *, batch_size: int, steps: int, clock: str) -> float:
    """Returns images/s over `steps` steps, after two to warm up.

    On a CPU each is waited for, as batches would run beside each other otherwise. On an accelerator they queue, as in training, where
    the host begins the next step while the last one runs; the peer's do, too.
    """
    waited = jax.default_backend() == "cpu"
    for _ in range(2):
        jax.block_until_ready(run())
    start = CLOCKS[clock]()
    for _ in range(steps):
        result = run()
        if waited:
            jax.block_until_ready(result)
    jax.block_until_ready(result)
    return batch_size * steps / (CLOCKS[clock]() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=models.NAMES, metavar="NAME")
    parser.add_argument("--train", action="store_true", help="a training step instead of features")
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--tuned", action="store_true", help="convolutions in the forms that `imgclf tune` finds fastest")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--peer", default="", help="command to compare with")
    arguments = parser.parse_args()
    options = {key: getattr(arguments, key) for key in ("precision", "batch_size", "size", "steps", "clock")}
    if arguments.peer:
        ours = [sys.executable, __file__, arguments.name, *(f"--{key}={value}" for key, value in options.items())]
        flags = ["--train"] * arguments.train + ["--tuned"] * arguments.tuned
        alternate(ours + flags, arguments.peer, arguments.pairs, r"([0-9.]+) img/s")
        return
    restart_with_huge_pages()  # as run.py does; after the peer, which chooses for itself
    compilation_memory.return_around_compilation()  # likewise
    what = "train" if arguments.train else "features"
    work = {key: options[key] for key in ("precision", "batch_size", "size")}
    run = prepared(arguments.name, train=arguments.train, tuned=arguments.tuned, **work)
    speed = measure(run, batch_size=arguments.batch_size, steps=arguments.steps, clock=arguments.clock)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"imgclf {arguments.name} {what} {arguments.precision}: {speed:.1f} img/s, at most {memory:.2f} GiB")


if __name__ == "__main__":
    main()
