"""Images/s of timm's or torchvision's model in PyTorch, channels_last: its logits, or one SGD step (the tutorials' CNN: RMSprop).

    python experiments/benchmarks/torch_peer.py timm convnext_nano
    python experiments/benchmarks/torch_peer.py timm tf_efficientnetv2_s --train --size 128
    python experiments/benchmarks/torch_peer.py tutorial cnn --train --size 128
    python experiments/benchmarks/torch_peer.py torchvision resnet50 --train --device cuda --autocast --compile --batch_size 128

A peer of models.py, cnn.py and gpu.py, for a Python that has torch, torchvision and timm, which imgclf's own needs not have.
"""

import argparse
import importlib.util
import time
from pathlib import Path

import torch

CLASSES = 10
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def define_missing_operators() -> None:
    """torchvision can't be imported without its compiled operators, of which classifiers use none."""
    spec = importlib.util.find_spec("torchvision")
    if spec and spec.origin and not list(Path(spec.origin).parent.glob("_C.*")):
        global library  # definitions last as long as the library does
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def tutorial_cnn(classes: int = 2) -> torch.nn.Module:
    """The CNN of configs/openimages_cnn.py, for images of 128 x 128."""
    from torch import nn

    maps: list[nn.Module] = []
    for before, after in ((3, 32), (32, 32), (32, 64)):
        maps += [nn.Conv2d(before, after, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*maps, nn.Flatten(), nn.Linear(14 * 14 * 64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, classes))


def build(library_name: str, model: str) -> torch.nn.Module:
    if library_name == "tutorial":
        return tutorial_cnn()
    define_missing_operators()
    if library_name == "timm":
        import timm

        return timm.create_model(model, num_classes=CLASSES)
    import torchvision

    return getattr(torchvision.models, model)(num_classes=CLASSES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=("timm", "torchvision", "tutorial"))
    parser.add_argument("model")
    parser.add_argument("--train", action="store_true", help="a training step instead of an evaluation")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--autocast", action="store_true", help="bfloat16 where torch thinks it safe; else f32")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True  # the fastest kernels for these shapes, as XLA looks for them, too
    model = build(arguments.library, arguments.model).to(arguments.device, memory_format=torch.channels_last)
    shape = arguments.batch_size, 3, arguments.size, arguments.size
    image = torch.rand(shape, device=arguments.device).contiguous(memory_format=torch.channels_last)
    tutorial = arguments.library == "tutorial"
    label = torch.randint(0, 2 if tutorial else CLASSES, (arguments.batch_size,), device=arguments.device)
    optimizer = torch.optim.RMSprop(model.parameters(), 5e-4) if tutorial else torch.optim.SGD(model.parameters(), 1e-3)
    forward = torch.compile(model) if arguments.compile else model
    half = torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.autocast)

    def train() -> None:
        optimizer.zero_grad()
        with half:
            loss = torch.nn.functional.cross_entropy(forward(image), label)
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def evaluate() -> None:
        with half:
            forward(image)

    run = train if arguments.train else evaluate
    model.train(arguments.train)
    wait = torch.cuda.synchronize if arguments.device == "cuda" else lambda: None
    for _ in range(2):
        run()
    wait()
    start = CLOCKS[arguments.clock]()
    for _ in range(arguments.steps):
        run()
    wait()
    print(f"torch {arguments.model}: {arguments.batch_size * arguments.steps / (CLOCKS[arguments.clock]() - start):.1f} img/s")


if __name__ == "__main__":
    main()
