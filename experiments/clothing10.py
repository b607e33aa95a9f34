"""Do fine-tuning and augmentation beat a probe on frozen features, on ten classes of clothing?

MobileNetV2 of two widths: a logistic probe, a probe that also sees four augmented views of each training photo, and LP-FT with
augmentation. All 814 photos in 5 folds, one seed. The 1.0 weights have their BatchNorm folded, so that its statistics stay frozen.
Cost: about 40 minutes on 2 CPU cores. Result: experiments/README.md.
Command: imgclf study experiments/clothing10.py[:DATA[,weights=FOLDER]]
"""

from typing import Any

from imgclf.config import default_config, parse_config_argument
from imgclf.studies import Study

DATA = "../shared/data/clothing10"
WEIGHTS = "../shared/weights"
FINE_TUNING: dict[str, Any] = {
    "train.method": "lp_ft",
    "train.duration": "6 epochs",
    "optimizer.learning_rate": 1e-4,
    "optimizer.weight_decay": 0.01,
    "optimizer.schedule.name": "cosine",
    "optimizer.schedule.warmup": "10%",
}
AUGMENTATION: dict[str, Any] = {"augment.crop_scale": (0.5, 1.0), "augment.flip": 0.5, "augment.rotate": 10.0}


def get_study(argument: str = "") -> Study:
    given = parse_config_argument(argument, weights=WEIGHTS)
    base = default_config()
    base.data.path = given["path"] or DATA
    base.data.image_size = (224, 224)
    base.train.log_every = "1 epochs"
    base.train.checkpoint_every = "100%"
    arms: dict[str, dict[str, Any]] = {}
    for width, name, file in (
        ("0.35", "mobilenet_v2_035", "mobilenet_v2_0.35_224_no_top.keras.h5"),
        ("1.0", "mobilenet_v2", "mobilenet_v2_1.0_224.keras.h5"),
    ):
        model: dict[str, Any] = {"model.name": name, "model.weights": f"path:{given['weights']}/{file}"}
        arms[f"{width} probe"] = model | {"train.method": "probe"}
        arms[f"{width} probe, 4 views"] = model | AUGMENTATION | {"train.method": "probe", "probe.views": 4}
        arms[f"{width} LP-FT"] = model | AUGMENTATION | FINE_TUNING
    return Study(base=base, arms=arms, baseline="1.0 probe", seeds=1, folds=5)
