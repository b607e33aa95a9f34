"""Which augmentation pays on a few hundred photos: for a small CNN from scratch, and for a pretrained MobileNetV2 that is fine-tuned?

From nothing over flips and crops to the tutorials' own sets, policies and mixing. The policies and the mixing stand on top of flip and
crop, as in their papers. Arms differ in their augmentation alone: one length of training for all, and the last parameters of a cosine
schedule, so that no validation part is taken away. What needs longer training to pay (MixUp, CutMix) is at a disadvantage here.
clothing10: 5 seeds on its own split of 600 and 214 photos; another data set: 2 seeds × 2 folds.
Cost: 40 seconds of CPU a run of the CNN, 25 of MobileNetV2; 55 runs each on clothing10, 44 elsewhere. Result: experiments/README.md.
Command: imgclf study experiments/augmentation.py[:DATA[,model=mobilenet_v2][,weights=FILE]] --workdir=DIR
"""

from pathlib import Path
from typing import Any

from imgclf.config import default_config, parse_config_argument
from imgclf.errors import UserError, nearest
from imgclf.studies import Study

DATA = "../shared/data/clothing10"
WEIGHTS = "../shared/weights/mobilenet_v2_0.35_224_no_top.keras.h5"

FLIP: dict[str, Any] = {"augment.flip": 0.5}
CROP = FLIP | {"augment.crop_scale": (0.35, 1.0)}
TUTORIAL = FLIP | {"augment.rotate": 40.0, "augment.shift": (0.2, 0.2), "augment.zoom": (0.8, 1.2)}  # S0's; its shear is below
ARMS: dict[str, dict[str, Any]] = {
    "none": {},
    "flip": FLIP,
    "flip, crop": CROP,
    "tutorial's, as it ran": TUTORIAL | {"augment.mode": "keras_legacy", "augment.shear": 0.2},  # degrees: as good as none
    "tutorial's, as it was meant": TUTORIAL | {"augment.shear": 11.5},  # 0.2 radians
    "retrain.py's distortions": FLIP | {"augment.margin_crop": 0.1, "augment.margin_scale": 0.1, "augment.brightness": 0.1},
    "flip, crop, RandAugment": CROP | {"augment.policy": "rand_augment"},
    "flip, crop, TrivialAugment": CROP | {"augment.policy": "trivial_augment"},
    "flip, crop, MixUp": CROP | {"augment.mixup": 0.2},
    "flip, crop, CutMix": CROP | {"augment.cutmix": 1.0},
    "flip, crop, MixUp or CutMix": CROP | {"augment.mixup": 0.2, "augment.cutmix": 1.0},
}

CNN = {
    "data.image_size": (48, 48),
    "model.cnn.widths": (16, 32, 64, 128),
    "train.duration": "60 epochs",
    "optimizer.learning_rate": 3e-3,
    "optimizer.weight_decay": 0.05,
}
MOBILENET = {
    "data.image_size": (96, 96),
    "model.name": "mobilenet_v2_035",
    "train.method": "lp_ft",
    "train.duration": "6 epochs",
    "optimizer.learning_rate": 5e-4,
    "optimizer.weight_decay": 0.05,
}
MODELS = {"cnn": CNN, "mobilenet_v2": MOBILENET}


def get_study(argument: str = "") -> Study:
    given = parse_config_argument(argument, model="cnn", weights=WEIGHTS)
    if given["model"] not in MODELS:
        raise UserError(f"This study takes model=cnn or model=mobilenet_v2, not {given['model']!r}; {nearest(given['model'], MODELS)}")
    base = default_config()
    base.update_from_flattened_dict(MODELS[given["model"]])
    base.data.path = given["path"] or DATA
    if given["model"] != "cnn":
        base.model.weights = f"path:{given['weights']}"
    base.data.split.fractions = (0.85, 0.0, 0.15)  # no val: nothing is chosen on it
    base.optimizer.schedule.name = "cosine"
    base.optimizer.schedule.warmup = "10%"
    base.train.best_metric = ""
    base.train.log_every = "5 epochs"
    base.train.checkpoint_every = "100%"
    small = Path(base.data.path).name != "clothing10"  # doraemon_walle's own test split has 6 photos
    return Study(base=base, arms=ARMS, baseline="none", seeds=2 if small else 5, folds=2 if small else 0)
