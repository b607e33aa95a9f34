"""A peer of loader.py: class folders → RandomResizedCrop(224), flip, normalise by torch's DataLoader, batches of 64, with 2 workers.

    TORCH experiments/benchmarks/torch_loader.py DIR

For a Python that has torch and torchvision. It prints the images/s of each of three epochs; the workers stay from the first on.
"""

import sys
import time

import torch
from torch_peer import define_missing_operators

define_missing_operators()
import torchvision.transforms as T  # noqa: E402
from torchvision.datasets import ImageFolder  # noqa: E402


def main() -> None:
    normalise = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    photos = ImageFolder(sys.argv[1], T.Compose([T.RandomResizedCrop(224), T.RandomHorizontalFlip(), T.ToTensor(), normalise]))
    loader = torch.utils.data.DataLoader(photos, 64, shuffle=True, num_workers=2, persistent_workers=True)
    for epoch in range(3):
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in loader)
        print(f"torch loader, epoch {epoch}: {count / (time.perf_counter() - start):.1f} img/s")


if __name__ == "__main__":
    main()
