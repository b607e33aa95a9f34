"""Writes torchvision_policies.json: the operations of torchvision's augmentation policies, their magnitudes bin by bin, and their signs.

python tests/golden/make_policies.py        # with torchvision 0.28; lengths are those of a view of 200 x 300 pixels
"""

import json
from pathlib import Path

import torchvision
from torchvision.transforms import v2

HEIGHT, WIDTH = 200, 300
SPACES = {
    "rand_augment": (v2.RandAugment._AUGMENTATION_SPACE, 31),
    "trivial_augment": (v2.TrivialAugmentWide._AUGMENTATION_SPACE, 31),
    "aug_mix": (v2.AugMix._AUGMENTATION_SPACE, 10),
    "aug_mix, partial": (v2.AugMix._PARTIAL_AUGMENTATION_SPACE, 10),
}


def main() -> None:
    golden = {"torchvision": torchvision.__version__, "size": [HEIGHT, WIDTH]}
    for policy, (space, bins) in SPACES.items():
        golden[policy] = {}
        for name, (magnitudes, is_signed) in space.items():
            values = magnitudes(bins, HEIGHT, WIDTH)
            golden[policy][name] = [None if values is None else [round(float(value), 6) for value in values], is_signed]
    text = json.dumps(golden).replace('}, "', '},\n"').replace('], "', '],\n "')
    Path(__file__).with_name("torchvision_policies.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
