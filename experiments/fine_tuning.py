"""Which recipe of fine-tuning beats the probe that it starts from, and which only costs time?

MobileNetV2 0.35 on the 600 training and 214 test photos of clothing10, a tenth of the former for choosing the epoch; small pictures and few
epochs, so that five seeds of every arm are affordable. All but the probe start from the probe's head (LP-FT), with random crops and flips,
AdamW, 5e-4 as the config finetune has it for MobileNetV2, 10 % warm-up, cosine, and the statistics of BatchNorm as they are (they stand
frozen in trainings as short as these).

  slow, fast            a fifth of the learning rate, and twice
  layer decay           0.8 a block, twice the rate: the end moves as in "fast", the first layers hardly
  gain                  kernels before a frozen BatchNorm learn more slowly by what that multiplies them by
  refit                 trained again on all 600 for as long as was best on the val part
  small                 training images of 0.7 of the size that is tested
  RandAugment           two operations of magnitude 9 on top; "weak" of magnitude 4
  longer                twice the epochs; also with RandAugment, with MixUp, and with both
  soup, flip            the three best epochs' average; the mean over the mirror image in testing
  EMA                   the parameters' average
  BatchNorm             statistics of the batches, with momentum 0.9 instead of the file's 0.999
  LAMB                  steps in proportion to each kernel's own size
  distilled             half of each label from a teacher: a finished run of the same classes, named by teacher=RUN
`test` is the share of the photos that tests, where the data name none.
Cost: half a minute of one core a run of 8 epochs, more for each new step. Result: experiments/README.md. `arms` names those to run,
joined by "+"; without it all are run.
Command: imgclf study experiments/fine_tuning.py[:DATA[,weights=FILE][,size=64][,epochs=8][,test=0.4][,teacher=RUN][,arms=LP-FT+refit]]
"""

from typing import Any

from imgclf.config import default_config, parse_config_argument
from imgclf.studies import Study

DATA = "../shared/data/clothing10"
WEIGHTS = "../shared/weights/mobilenet_v2_0.35_224_no_top.keras.h5"
FOLLOWING = "padding='same', epsilon=0.001, momentum=0.9, unbiased=False"  # Keras's network but for the momentum


def get_study(argument: str = "") -> Study:
    given = parse_config_argument(argument, weights=WEIGHTS, size="64", epochs="8", test="0", teacher="", arms="")
    size, epochs, test = int(given["size"]), int(given["epochs"]), float(given["test"])
    base = default_config()
    base.data.path = given["path"] or DATA
    base.data.image_size = (size, size)
    base.data.split.fractions = (0.9 * (1 - test), 0.1 * (1 - test), test)
    base.augment.crop_scale = (0.5, 1.0)
    base.augment.flip = 0.5
    base.model.name = "mobilenet_v2_035"
    base.model.weights = f"path:{given['weights']}"
    base.train.method = "lp_ft"
    base.train.duration = f"{epochs} epochs"
    base.train.log_every = "1 epochs"
    base.train.checkpoint_every = "100%"
    base.optimizer.learning_rate = 5e-4
    base.optimizer.weight_decay = 0.01
    base.optimizer.schedule.name = "cosine"
    base.optimizer.schedule.warmup = "10%"
    longer = {"train.duration": f"{2 * epochs} epochs"}
    arms: dict[str, dict[str, Any]] = {
        "probe": {"train.method": "probe"},
        "LP-FT": {},
        "slow": {"optimizer.learning_rate": 1e-4},
        "fast": {"optimizer.learning_rate": 1e-3},
        "layer decay": {"optimizer.layer_decay": 0.8, "optimizer.learning_rate": 1e-3},
        "small": {"augment.image_size": (round(0.7 * size), round(0.7 * size))},
        "EMA": {"train.ema": 0.95},
        "flip": {"eval.views": "flip"},
        "soup": {"train.soup": 3},
        "RandAugment": {"augment.policy": "rand_augment"},
        "RandAugment, weak": {"augment.policy": "rand_augment", "augment.policy_args": "magnitude=4"},
        "longer": longer,
        "longer, RandAugment": longer | {"augment.policy": "rand_augment"},
        "MixUp": longer | {"augment.mixup": 0.2},
        "MixUp, RandAugment": longer | {"augment.mixup": 0.2, "augment.policy": "rand_augment"},
        "refit": {"train.refit": True},
        "BatchNorm": {"freeze.batch_norm": "train", "model.variant": FOLLOWING},
        "gain": {"optimizer.undo_norm_gain": True},
        "LAMB": {"optimizer.name": "lamb", "optimizer.learning_rate": 3e-3},
    }
    if given["teacher"]:
        arms["distilled"] = {"train.teacher": given["teacher"]}
    if given["arms"]:
        arms = {name: arms[name] for name in ("probe", *given["arms"].split("+"))}
    return Study(base=base, arms=arms, baseline="probe", seeds=5)
