"""What colour, erasing and mixing cost: images a second of the training step's part, and of the host's draws for it.

    python experiments/benchmarks/elementwise.py                    # a batch of 64 views of 224 x 224
    python experiments/benchmarks/elementwise.py --peer PYTHON      # beside torchvision v2, run by that PYTHON

The step's part is timed as the training step has it, compiled with the normalisation, of which it is told apart ("normalise" alone). The
peer has the same threads. Both sides take turns, three rounds, and the median counts. Quote from a quiet machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCH, SIZE, SECONDS, ROUNDS = 64, 224, 1.0, 3
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 36.0}  # degrees; torchvision's 0.1 of a turn
PEER = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
import torchvision_v2
from elementwise import BATCH, SIZE, rate
v2 = torchvision_v2.load()
images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (0.25,) * 3)])
jitter, erasing = v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.RandomErasing(p=1.0)
mixing, labels = v2.MixUp(num_classes=10), torch.zeros(BATCH, dtype=torch.long)
kinds = {
    "normalise": lambda: normalise(images),
    "colour": lambda: torch.stack([normalise(jitter(image)) for image in images]),
    "erasing": lambda: torch.stack([erasing(normalise(image)) for image in images]),
    "MixUp": lambda: mixing(normalise(images), labels),
}
print(json.dumps({name: rate(make) for name, make in kinds.items()}))
"""


def rate(make: Callable[[], object]) -> float:
    """Images a second, after a first call."""
    make()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        make()
        done += BATCH
    return done / (time.perf_counter() - start)


def ours() -> dict[str, float]:
    import types

    import jax

    from imgclf.config import default_config
    from imgclf.data import augment
    from imgclf.training import batch_augment, mixing
    from imgclf.training.step import normalize

    mean, std = (0.5,) * 3, (0.25,) * 3
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    fields = types.SimpleNamespace(**(default_config().augment.to_dict() | JITTER | {"erase": 1.0}))
    drawn = [augment.draw(augment.view_rng(0, str(n), 0), fields) for n in range(BATCH)]

    def colours() -> np.ndarray:
        return np.stack([augment.color.matrix(view.color, image) for view, image in zip(drawn, images, strict=True)])

    def boxes() -> np.ndarray:
        return np.stack([augment.erase.boxes(view.erase, fields, (SIZE, SIZE)) for view in drawn])

    parameters = {"mixup": 0.2, "cutmix": 1.0, "mix_switch": 0.5, "mix_probability": 1.0}

    def step(batch: dict[str, jax.Array], number: int, mixed: bool) -> jax.Array:
        mix = mixing.draw(mixing.step_key(jax.random.key(0), number), (SIZE, SIZE), parameters) if mixed else None
        return normalize(batch_augment.augmented(batch, mean, std, mix), mean, std)

    compiled = jax.jit(step, static_argnums=2)
    batches = {
        "normalise": ({}, False),
        "colour": ({"color": colours()}, False),
        "erasing": ({"erase": boxes()}, False),
        "erasing by noise": ({"erase": boxes(), "erase_seed": np.arange(BATCH, dtype=np.uint32)}, False),
        "MixUp": ({}, True),
        "all but noise": ({"color": colours(), "erase": boxes()}, True),
    }
    rates = {}
    for name, (carried, mixed) in batches.items():
        batch = jax.device_put({"image": images, **carried})
        rates[name] = rate(lambda batch=batch, mixed=mixed: compiled(batch, 3, mixed).block_until_ready())
    rates["host: colour, one thread"] = rate(colours)
    rates["host: draws of all kinds, one thread"] = rate(
        lambda: [augment.draw(augment.view_rng(0, str(n), 0), fields) for n in range(BATCH)]
    )
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a Python that has torchvision")
    peer = parser.parse_args().peer
    rounds: list[tuple[dict, dict]] = []
    for _ in range(ROUNDS if peer else 1):
        theirs = {}
        if peer:
            command = [peer, "-c", PEER, str(Path(__file__).parent)]
            theirs = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        rounds.append((ours(), theirs))
    for name in rounds[0][0]:
        own = statistics.median(a[name] for a, _ in rounds)
        line = f"{name:40}{own:12,.0f} images/s"
        if name in rounds[0][1]:
            other = statistics.median(b[name] for _, b in rounds)
            line += f"{other:12,.0f} torchvision{own / other:8.1f}x"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
