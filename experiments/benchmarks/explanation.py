"""What an explanation costs beside the forward pass that it explains.

    python experiments/benchmarks/explanation.py [--models mobilenet_v2,…] [--size 224] [--images 4] [--rounds 7]

For each network, with random weights: the work of a batch, as XLA counts it, of HiResCAM of one class and of two beside the forward pass to
the logits as evaluation runs it, and, with --rounds above 0, the milliseconds of these and of occlusion of one image. They take turns, and
the least time of each is shown: what other processes take only adds. Compilation is not counted. One JSON line per network.
"""

import argparse
import json
import time
from collections.abc import Callable

import jax
import numpy as np

from imgclf import models
from imgclf.config import default_config
from imgclf.explanation import cam, occlusion
from imgclf.explanation.explained import Explained
from imgclf.models.weights import pretrained
from imgclf.training import work
from imgclf.training.state import make_apply_fn, split_model
from imgclf.training.step import normalize

MODELS = "mobilenet_v2,resnet50,convnext_nano,efficientnet_b0,squeezenet1_1,vit_small_patch16_224,vit_small_patch16_dinov3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    for name in args.models.split(","):
        model = network(name, args.size)
        found = {"model": name, **counted(model, args.size, args.images)}
        if args.rounds:
            found |= measured(model, args.size, args.images, args.rounds)
        print(json.dumps(found), flush=True)


def counted(model: Explained, size: int, count: int) -> dict[str, float]:
    """The work of HiResCAM beside that of the forward pass; nothing is compiled. 4 images at 224 pixels are computed without a loop."""
    image = jax.ShapeDtypeStruct((count, size, size, 3), np.uint8)
    weights = (model.params, model.batch_stats)
    explain = cam.compiled(model)
    plain = work.flops(forward(model), *weights, image)
    found = {}
    for classes, name in ((1, "hirescam"), (2, "hirescam of two classes")):
        found[f"{name} / forward, work"] = round(
            (work.flops(explain, *weights, image, jax.ShapeDtypeStruct((count, classes), np.int32)) or 0) / (plain or 1), 3
        )
    return found


def forward(model: Explained) -> jax.stages.Wrapped:
    apply, (mean, std) = make_apply_fn(model.graphdef), model.normalization
    return jax.jit(lambda params, batch_stats, image: apply(params, batch_stats, normalize(image, mean, std))[0])


def measured(model: Explained, size: int, count: int, rounds: int) -> dict[str, float]:
    """Milliseconds of a batch, the least of some rounds, and their ratios to the forward pass; occlusion is that of one image."""
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    labels = np.arange(count) % 10
    run_forward = forward(model)
    runs: dict[str, Callable[[], object]] = {
        "forward": lambda: jax.block_until_ready(run_forward(model.params, model.batch_stats, images)),
        "hirescam": lambda: cam.maps(model, images, labels),
        "hirescam of two classes": lambda: cam.maps(model, images, np.stack([labels, labels + 1], 1)),
    }
    for run in runs.values():
        run()  # compiles
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    for _ in range(rounds):
        for kind, run in runs.items():
            times[kind].append(seconds(run))
    occlusion.maps(model, images[:1], labels[:1])
    least = {kind: min(found) for kind, found in times.items()}
    least["occlusion"] = seconds(lambda: occlusion.maps(model, images[:1], labels[:1]))
    found = {f"{kind} ms": round(1000 * value, 1) for kind, value in least.items()}
    return found | {f"{kind} / forward": round(least[kind] / least["forward"], 2) for kind in ("hirescam", "hirescam of two classes")}


def network(name: str, size: int) -> Explained:
    """A network for ten classes, with random weights on the device."""
    config = default_config()
    config.model.name, config.data.image_size = name, (size, size)
    config = pretrained.resolve(config, 10)
    graphdef, params, batch_stats = split_model(models.create(config, 10))
    return Explained(config, graphdef, *jax.device_put((params, batch_stats)))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
