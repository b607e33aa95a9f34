"""Any pretrained model on your photos, by LP-FT: a probe on frozen features, then all of the network from there.

PATH is a folder of class folders, or a CSV (as in configs/csv.py). `model` is one that `imgclf models` lists, `weights` one of its weights
(the first on the hub by default) or path:FILE. SGD with Nesterov momentum, 10 epochs, cosine; crops and flips. For the probe alone add
--config.train.method=probe, for the learning rate ask `imgclf lr-find --config=configs/finetune.py:PATH`, to train part of the network
--config.freeze.preset=last_stage.
Cost: MobileNetV2 at 224 px, 278 photos: about 5 minutes on 2 busy CPU cores. Expected: experiments/README.md has LP-FT beside probes on
two data sets. Weights whose BatchNorm is folded into the kernels stand less: with such ones of MobileNetV2 1.0 this rate diverged within
3 epochs on 278 photos, so that the probe was the best model; lower the rate for these.
Command: python run.py --config=configs/finetune.py:PATH[,model=resnet50][,weights=timm/resnet50.a1_in1k]
"""

from pathlib import Path

from ml_collections import ConfigDict

from imgclf.config import default_config, structure
from imgclf.errors import UserError


def get_config(argument: str = "") -> ConfigDict:
    given = structure(argument, model="mobilenet_v2", weights="")
    path = given["path"]
    if not path:
        raise UserError("configs/finetune.py needs your photos: --config=configs/finetune.py:PATH[,model=…,weights=…].")
    from imgclf.models import pretrained  # imports JAX

    entry = pretrained.find(given["weights"], given["model"]) if given["weights"] else pretrained.on_hub(given["model"])
    config = default_config()
    config.name = f"{Path(path).resolve().stem}-{given['model']}"
    config.data.source = "csv" if Path(path).suffix in (".csv", ".tsv", ".parquet") else "folder"
    config.data.path = path
    config.data.image_size = entry.input_size
    config.model.name = given["model"]
    config.model.weights = entry.name

    config.augment.crop_scale = (0.5, 1.0)
    config.augment.flip = 0.5

    config.train.method = "lp_ft"
    config.train.log_every = "1 epochs"
    config.optimizer.name = "sgd"
    config.optimizer.args = "momentum=0.9, nesterov=True"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule.name = "cosine"
    config.optimizer.schedule.warmup = "10%"
    return config
