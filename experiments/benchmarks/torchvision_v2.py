"""torchvision's transforms for the peers' side of a benchmark; run by a Python that has torch and torchvision."""

import sys
from types import ModuleType


def load() -> ModuleType:
    """Returns torchvision.transforms.v2.

    A torchvision built for another torch looks for its compiled operators, which are not used here: then they are declared first.
    """
    import torch

    try:
        from torchvision.transforms import v2
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for module in [name for name in sys.modules if name.startswith("torchvision.") or name == "torchvision"]:
            del sys.modules[module]
        from torchvision.transforms import v2
    return v2
