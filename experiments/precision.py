"""Does fine-tuning with bfloat16 products (`model.precision="bf16"` on the CPU) end as accurate as in float32?

Flips alone as augmentation; MobileNetV2 0.35 from a probe, as in experiments/augmentation.py. 5 seeds on clothing10's own split.
Cost: 25 seconds of CPU a run, 10 runs. Result: experiments/README.md.
Command: imgclf study experiments/precision.py[:DATA[,weights=FILE]] --workdir=DIR
"""

from imgclf.config import default_config, parse_config_argument
from imgclf.studies import Study

DATA = "../shared/data/clothing10"
WEIGHTS = "../shared/weights/mobilenet_v2_0.35_224_no_top.keras.h5"


def get_study(argument: str = "") -> Study:
    given = parse_config_argument(argument, weights=WEIGHTS)
    base = default_config()
    base.data.path = given["path"] or DATA
    base.data.image_size = (96, 96)
    base.data.split.fractions = (0.85, 0.0, 0.15)  # no val: nothing is chosen on it
    base.augment.flip = 0.5
    base.model.name, base.model.weights = "mobilenet_v2_035", f"path:{given['weights']}"
    base.optimizer.learning_rate, base.optimizer.weight_decay = 5e-4, 0.05
    base.optimizer.schedule.name, base.optimizer.schedule.warmup = "cosine", "10%"
    base.train.method, base.train.duration, base.train.best_metric = "lp_ft", "6 epochs", ""
    base.train.log_every, base.train.checkpoint_every = "5 epochs", "100%"
    return Study(base=base, arms={"f32": {"model.precision": "f32"}, "bf16": {"model.precision": "bf16"}}, baseline="f32", seeds=5)
