"""From scratch, a probe on frozen features, or fine-tuning: what does each get on 318 photos of Doraemon and WALL·E?

The arms: S1's CNN (three convolutions, dropout, Dense 128) from scratch; S1's frozen MobileNetV2 (dropout and a dense layer by Adam); a
logistic probe on the same features; and LP-FT, which goes on from the probe's head. 5 seeds × 5 folds: every photo is tested once per seed.
TuriCreate's tutorial states 0.9677 (30 of 31 photos, 95 % interval 83.8–99.4 %) on data of this kind.
Cost: about 35 minutes on 2 CPU cores. Result: experiments/README.md.
Command: imgclf study experiments/doraemon_walle.py[:DATA[,weights=FILE]]
"""

from typing import Any

from imgclf.config import default_config, parse_config_argument
from imgclf.studies import Study

DATA = "../shared/data/doraemon_walle"
WEIGHTS = "../shared/weights/mobilenet_v2_0.35_224_no_top.keras.h5"

TUTORIAL_CNN: dict[str, Any] = {
    "data.image_size": (96, 96),
    "augment.rotate": 30.0,
    "augment.shift": (0.1, 0.1),
    "augment.zoom": (0.8, 1.2),
    "augment.flip": 0.5,
    "model.cnn.widths": (32, 32, 64),
    "model.cnn.norm": "none",
    "model.cnn.maps_dropout": 0.4,
    "model.cnn.flatten": True,
    "model.cnn.dense": (128,),
    "train.duration": "30 epochs",  # at 1e-3; the tutorial took 500 at 1e-6
    "optimizer.name": "adam",
    "optimizer.learning_rate": 1e-3,
}


def get_study(argument: str = "") -> Study:
    given = parse_config_argument(argument, weights=WEIGHTS)
    base = default_config()
    base.data.path = given["path"] or DATA
    base.data.image_size = (224, 224)
    base.train.eval_every = "2 epochs"
    base.train.log_every = "1 epochs"
    base.train.checkpoint_every = "100%"
    mobilenet: dict[str, Any] = {"model.name": "mobilenet_v2_035", "model.weights": f"path:{given['weights']}"}
    arms: dict[str, dict[str, Any]] = {
        "S1's CNN": TUTORIAL_CNN,
        "S1's frozen MobileNetV2": mobilenet
        | {
            "train.method": "probe",
            "probe.solver": "minibatch",
            "model.head.kind": "linear",
            "model.head.dropout": 0.2,
            "optimizer.name": "adam",
            "train.duration": "30 epochs",
        },
        "probe": mobilenet | {"train.method": "probe"},
        "LP-FT": mobilenet
        | {
            "train.method": "lp_ft",
            "train.duration": "4 epochs",
            "augment.crop_scale": (0.5, 1.0),
            "augment.flip": 0.5,
            "optimizer.name": "sgd",
            "optimizer.args": "momentum=0.9, nesterov=True",
            "optimizer.learning_rate": 1e-3,
            "optimizer.schedule.name": "cosine",
            "optimizer.schedule.warmup": "10%",
        },
    }
    return Study(base=base, arms=arms, baseline="probe", seeds=5, folds=5)
