"""How much of a pretrained network should train on a few photos a class, and what becomes of its BatchNorm statistics meanwhile?

MobileNetV2 0.35 at 96 px, all arms with one recipe: 6 epochs of AdamW (head 1e-3, backbone 1e-4), cosine, crops and flips. What trains:

  probe           a head solved by logistic regression on plain photos, without that recipe: what fine-tuning has to beat
  head            the new head alone
  half            the last half: S3 freezes VGG16's first 15 layers, 52 % of the backbone's parameters; here the first 143 Keras layers
                  (to block 15) hold 48 %
  last stage      blocks 13 to 16 and the last convolution, 78 % of the parameters. By depth this is S3's cut: 15 of 19 layers of VGG16
                  are 122 of 154 here, which ends within block 13
  15 layers       S3's very number: all but Keras's first 15 layers, which here hold 0.5 % of the parameters
  all             everything
  LP-FT           everything, from the head of a logistic probe
  staged          head, then last stage, then everything, a third of the steps each

… BN: the statistics of batches train and follow with momentum 0.9; without it those of the weights stand. "all, BN 0.999": they train with
Keras's own momentum, which such short trainings are too short for.
3 seeds × 2 folds: each model sees about 34 photos a class (and validates on 7), each photo is tested once per seed.
Cost: see experiments/README.md. Command: imgclf study experiments/freezing.py[:DATA[,weights=FILE]], such as
../shared/data/doraemon_walle
"""

from typing import Any

from imgclf.config import default_config, parse_config_argument
from imgclf.studies import Study

DATA = "../shared/data/clothing10"
WEIGHTS = "../shared/weights/mobilenet_v2_0.35_224_no_top.keras.h5"
FOLLOWING = "padding='same', epsilon=0.001, momentum=0.9, unbiased=False"  # Keras's network but for the momentum
TRAINS: dict[str, dict[str, Any]] = {
    "probe": {"train.method": "probe"},
    "head": {"freeze.preset": "head"},
    "half": {"freeze.preset": "first_143_layers"},
    "last stage": {"freeze.preset": "last_stage"},
    "15 layers": {"freeze.preset": "first_15_layers"},
    "all": {},
    "LP-FT": {"train.method": "lp_ft"},
    "staged": {"freeze.stages": (("33%", "head"), ("33%", "last_stage"), ("34%", "none"))},
}


def get_study(argument: str = "") -> Study:
    given = parse_config_argument(argument, weights=WEIGHTS)
    base = default_config()
    base.data.path = given["path"] or DATA
    base.data.image_size = (96, 96)
    base.data.split.fractions = (0.4, 0.08, 0.52)  # of what the fold leaves: 5 of 6 train, 1 of 6 validates
    base.augment.crop_scale = (0.5, 1.0)
    base.augment.flip = 0.5
    base.model.name = "mobilenet_v2_035"
    base.model.weights = f"path:{given['weights']}"
    base.train.method = "fit"
    base.train.duration = "6 epochs"
    base.train.eval_every = "2 epochs"
    base.train.log_every = "2 epochs"
    base.train.checkpoint_every = "100%"
    base.optimizer.learning_rate = 1e-4
    base.optimizer.lr_table = (("head/.*", 10.0), (".*", 1.0))
    base.optimizer.weight_decay = 0.01
    base.optimizer.schedule.name = "cosine"
    base.optimizer.schedule.warmup = "10%"
    arms: dict[str, dict[str, Any]] = {}
    for name, fields in TRAINS.items():
        arms[name] = fields | {"freeze.batch_norm": "frozen"}
        if name in ("head", "last stage", "all"):
            arms[f"{name}, BN"] = fields | {"freeze.batch_norm": "train", "model.variant": FOLLOWING}
    arms["all, BN 0.999"] = {"freeze.batch_norm": "train"}
    return Study(base=base, arms=arms, baseline="probe", seeds=3, folds=2)
