"""ResNet-50's training step in bfloat16 on one GPU: synthetic batches, batches from a pack, beside PyTorch, and beside what was planned.

    imgclf plan imagenet_resnet50:X --topology h100:1 --images 1281167 --classes 1000 --batch-per-chip 128 --out plan
    python experiments/benchmarks/gpu.py --photos PHOTOS --torch PYTHON --plan plan/plan.json

Three lines, each as soon as it is known: images/s of the step alone on batches that are on the device already, in turn with torch.compile,
channels_last and autocast; the same step as `imgclf train` takes it, fed from a pack of raw pictures, with the share of the time in which
the GPU waited for data; and measured over planned speed. Cost: 4 minutes on an H100, two of them compilation; 8 at most.
On a machine without a GPU, `--device cpu --model resnet18 --size 64 --batch_size 8 --steps 2 --pairs 1` tries its parts.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import peers

HERE = Path(__file__).resolve().parent


def step_alone(arguments: argparse.Namespace) -> float:
    """Images/s of the step on synthetic batches: the median of the pairs; each beside PyTorch's where there is one."""
    size = [f"--batch_size={arguments.batch_size}", f"--size={arguments.size}", f"--steps={arguments.steps}"]
    ours = [sys.executable, str(HERE / "models.py"), arguments.model, "--train", "--precision=bf16", *size]
    theirs = [arguments.torch, str(HERE / "torch_peer.py"), "torchvision", arguments.model, "--train", "--autocast", "--compile", *size]
    theirs.append(f"--device={arguments.device}")
    rates, ratios = [], []
    for _ in range(arguments.pairs):
        rates.append(peers.rate(ours, r"([0-9.]+) img/s"))
        if arguments.torch:
            ratios.append(rates[-1] / peers.rate(theirs, r"([0-9.]+) img/s"))
    beside = f"; beside PyTorch {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
    print(f"step alone: {statistics.median(rates):,.0f} images/s, {len(rates)} runs{beside}", flush=True)
    return statistics.median(rates)


def fed_from_a_pack(arguments: argparse.Namespace) -> None:
    """Images/s of `imgclf train` on a pack of raw pictures, and what of the time the device waited."""
    import imgclf
    from imgclf.config import default_config

    with tempfile.TemporaryDirectory() as name:
        pack, run = Path(name) / "pack", Path(name) / "run"
        config = default_config()
        config.data.path, config.data.scenes, config.data.image_size = str(arguments.photos), "off", (arguments.size, arguments.size)
        imgclf.pack_data(config, pack, format="raw", size=arguments.size)
        config.data.source, config.data.path = "packed", str(pack)
        config.augment.crop_scale, config.augment.flip = (0.08, 1.0), 0.5
        config.loader.batch_size, config.loader.workers, config.loader.prefetch = arguments.batch_size, arguments.workers, 4
        config.model.name, config.model.precision = arguments.model, "bf16"
        config.optimizer.name, config.train.method = "sgd", "fit"
        config.train.duration, config.train.log_every = f"{4 * arguments.steps} steps", f"{arguments.steps} steps"
        config.train.eval_every = config.train.checkpoint_every = f"{4 * arguments.steps} steps"
        config.eval.explain = 0
        imgclf.train(config, workdir=run)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    timed = [line for line in lines if "images_per_second" in line][-2:]
    rate, wait = (statistics.mean(line[key] for line in timed) for key in ("images_per_second", "data_wait"))
    print(f"fed from a pack: {rate:,.0f} images/s, {wait:.0%} of the time waiting for data", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of class folders, which is packed for the second line")
    parser.add_argument("--torch", default="", metavar="PYTHON", help="a Python that has torch and torchvision")
    parser.add_argument("--plan", type=Path, help="the JSON of `imgclf plan` for this chip, this batch and this model")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="PyTorch's; JAX takes what is there")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=14)
    arguments = parser.parse_args()
    measured = step_alone(arguments)
    if arguments.photos:
        fed_from_a_pack(arguments)
    if arguments.plan:
        (plan,) = json.loads(arguments.plan.read_text(encoding="utf-8"))["topologies"]
        bound = plan["summary"]["images_per_second_per_chip"]
        print(f"measured over planned: {measured / bound:.2f} of {bound:,.0f} images/s at most", flush=True)


if __name__ == "__main__":
    main()
