"""Writes timm_mixup.json: what timm's `Mixup` (1.0.31) makes of four small images, for given shares and box centres.

Needs torch and timm.
"""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from timm.data import mixup

CLASSES, SMOOTHING, SIZE = 3, 0.1, (6, 5)
CASES = [(False, 0.3, 0, 0), (False, 1.0, 0, 0), (True, 0.5, 2, 2), (True, 0.2, 0, 4), (True, 0.9, 5, 1)]  # CutMix?, share, y, x


def main() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3))
    label, cases = [0, 1, 2, 2], []
    for is_cutmix, share, y, x in CASES:
        alphas = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0} if is_cutmix else {"mixup_alpha": 1.0, "cutmix_alpha": 0.0}
        mixer = mixup.Mixup(**alphas, label_smoothing=SMOOTHING, num_classes=CLASSES)
        batch = torch.tensor(image, dtype=torch.float32).permute(0, 3, 1, 2).contiguous()
        with mock.patch("numpy.random.beta", return_value=share), mock.patch("numpy.random.randint", side_effect=[y, x]):
            mixed, target = mixer(batch, torch.tensor(label))
        pixels = mixed.permute(0, 2, 3, 1).double().numpy().round(4).tolist()
        cases.append({"cutmix": is_cutmix, "share": share, "y": y, "x": x, "image": pixels, "target": target.double().numpy().tolist()})
    golden = {"image": image.tolist(), "label": label, "classes": CLASSES, "smoothing": SMOOTHING, "cases": cases}
    Path(__file__).with_name("timm_mixup.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
