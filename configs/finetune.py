"""Any pretrained model on your photos, by LP-FT: a probe on frozen features, then all of the network from there.

PATH is a folder of class folders, or a CSV (as in the config csv). `model` is one that `imgclf models` lists, by default that of the
weights, or MobileNetV2; `weights` one of its weights (the first on the hub by default) or path:FILE. Photos are shown as the weights'
authors evaluated: the centre crop of their fraction and interpolation (--set data.resize=squash for all of each photo). AdamW, 10 epochs,
cosine; crops and flips. For the probe alone add --set train.method=probe, for the learning rate ask `imgclf lr-find finetune:PATH`, to
train part of the network --set freeze.preset=last_stage.
Cost: MobileNetV2 at 224 px, 278 photos: about 3 minutes on 2 CPU cores. Expected: experiments/README.md has LP-FT beside probes on two
data sets. The learning rate is 5e-4 for MobileNetV2 and 1e-4 for all others: on ten kinds of clothing, 5 seeds, MobileNetV2 0.35 was 8
points better than its probe at 5e-4, and at 1e-4 never left it; at 5e-4 the first epochs lose what the probe had, and the last ones end
above it. Adam's steps have one size in all layers: by SGD at 3e-3, weights whose BatchNorm is folded into the kernels diverged.
Command: imgclf train finetune:PATH[,model=resnet50][,weights=timm/resnet50.a1_in1k]
"""

from pathlib import Path

from imgclf.config import Config, default_config, parse_config_argument
from imgclf.data.paths import existing
from imgclf.errors import UserError


def get_config(argument: str = "") -> Config:
    given = parse_config_argument(argument, model="", weights="")
    path = given["path"]
    if not path:
        raise UserError("The config finetune needs your photos: finetune:PATH[,model=…,weights=…].")
    existing(path, "data.path")  # told before JAX is imported
    from imgclf.models.weights import pretrained

    model = given["model"] or (given["weights"] and pretrained.model_of(given["weights"])) or "mobilenet_v2"
    entry = pretrained.find(given["weights"], model) if given["weights"] else pretrained.on_hub(model)
    config = default_config()
    config.name = f"{Path(path).resolve().stem}-{model}"
    config.data.source = "csv" if Path(path).suffix in (".csv", ".tsv", ".parquet") else "folder"
    config.data.path = path
    config.data.image_size = entry.input_size
    config.data.scenes = "auto"
    config.data.resize = "weights"
    config.model.name = model
    config.model.weights = entry.name

    config.augment.crop_scale = (0.5, 1.0)
    config.augment.flip = 0.5

    config.train.method = "lp_ft"
    config.train.log_every = "1 epochs"
    config.optimizer.learning_rate = 5e-4 if model.startswith("mobilenet_v2") else 1e-4
    config.optimizer.weight_decay = 0.01
    config.optimizer.schedule.name = "cosine"
    config.optimizer.schedule.warmup = "10%"
    return config
