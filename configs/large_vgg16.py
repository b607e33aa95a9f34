"""VGG16 fine-tuned from block 5 on, on a folder of very many classes and photos: PATH/{train,validation}/CLASS/*.jpg.

The tutorial's, on 14,951 landmarks in 1.2 million photos: images 200 wide and 150 high, whole photos squashed; Flatten → Dense 256 (He,
ReLU) → BatchNorm → dropout 0.5 → softmax; Keras's first 15 layers frozen, which are blocks 1–4 (10 convolutions, 7,635,264 parameters);
RMSprop 5e-7 with decay 5e-5, batch 64, 50 epochs; the kept model is that of the best validation loss, named by epoch and metric. It says
“200x150” without an order: photos lie more often than they stand, so that 150 is the height here; the other way is --set
data.image_size="(200, 150)". Nothing is held in memory but the table of names and what the loader has ahead; photos are verified in the
background while training goes on (data.verify), and scores are computed a batch at a time. Photos to predict, any number: imgclf predict
RUN FOLDER.
Cost: 50 epochs of 1.2 million: made for a GPU, and not yet run to its end by us. Expected: the tutorial states no accuracy that we
know of. At a rate this small the network learns slowly: imgclf lr-find large_vgg16:PATH suggests another.
Command: imgclf train large_vgg16:PATH
"""

from pathlib import Path

from imgclf.config import Config, default_config, parse_config_argument
from imgclf.errors import UserError


def get_config(argument: str = "") -> Config:
    given = parse_config_argument(argument, weights="timm/vgg16.tv_in1k")
    path = given["path"]
    if not path:
        raise UserError("The config large_vgg16 needs a folder of classes: large_vgg16:PATH.")
    config = default_config()
    config.name = f"large_vgg16-{Path(path).resolve().name}"
    config.data.source = "folder"
    config.data.path = path
    config.data.image_size = (150, 200)
    config.data.in_memory_mb = 0

    config.loader.batch_size = 64
    config.loader.eval_batch_size = 256
    config.loader.threads = 16
    config.model.name = "vgg16"
    config.model.weights = given["weights"]
    config.model.head.kind = "mlp"
    config.model.head.flatten = True
    config.model.head.dense = (256,)
    config.model.head.norm = "batch"
    config.model.head.dropout = 0.5

    config.train.method = "fit"
    config.freeze.preset = "first_15_layers"
    config.train.duration = "50 epochs"
    config.train.checkpoint_seconds = 1800.0
    config.train.best_metric = "val_loss"
    config.optimizer.name = "rmsprop"
    config.optimizer.args = "decay=0.9, eps=1e-7, eps_in_sqrt=False"  # Keras's RMSprop
    config.optimizer.learning_rate = 5e-7
    config.optimizer.schedule.name = "time"
    config.optimizer.schedule.rate = 5e-5
    config.eval.split = "val"
    return config
