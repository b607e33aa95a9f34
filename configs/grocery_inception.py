"""Grocery products by retraining the last layer of Inception V3, as Google's retrain.py does, from a CSV of file stems and labels.

LABELS.csv has the columns `image_id` (a stem) and `label`; `root` is the folder of the images. Its parts: a split by the hash of the
relative path, 10 % validation and 10 % test; 2,048 features at 299x299 of whole photos, squashed as retrain.py does, computed once and
cached; a softmax layer by SGD 0.01, batch 100, 4,000 steps; TensorBoard summaries. distortions=True trains on images cropped and scaled by
up to 10 %, brightened by ±10 % and flipped, which bypass the cache, so that every step runs the network. The tutorial's slips are repaired:
classes are balanced by weights in the loss, not by augmented copies that stand on both sides of the split; the hash is of the relative
path, so that moving the folder reshuffles nothing; predictions (`imgclf predict`) are paired with images by id. Its augmented copies,
without their slips, are made by `imgclf data balance LABELS.csv --to 600 --out DIR`, after the split; --set augment.mode=keras_legacy makes
them as Keras did.
Cost: the features once, the layer seconds; with distortions a run of Inception V3 over 400,000 images, made for a GPU.
Expected: the tutorial states about 0.85 “at once”; not yet run on its data by us.
Command: imgclf train grocery_inception:LABELS.csv,root=IMAGES[,distortions=True]
"""

from pathlib import Path

from imgclf.config import Config, default_config, parse_config_argument
from imgclf.errors import UserError


def get_config(argument: str = "") -> Config:
    given = parse_config_argument(argument, root="", weights="timm/inception_v3.tf_in1k", distortions=False)
    path = given["path"]
    if not path:
        raise UserError("The config grocery_inception needs a CSV of labels: grocery_inception:LABELS.csv,root=IMAGES.")
    config = default_config()
    config.name = f"grocery_inception-{Path(path).stem}"
    config.data.source = "csv"
    config.data.path = path
    config.data.root = given["root"]
    config.data.columns.path = "image_id"
    config.data.image_size = (299, 299)
    config.data.split.method = "hash"
    config.data.split.fractions = (0.8, 0.1, 0.1)

    if given["distortions"]:
        config.augment.flip = 0.5
        config.augment.margin_crop = 0.1
        config.augment.margin_scale = 0.1
        config.augment.brightness = 0.1

    config.loader.batch_size = 100
    config.model.name = "inception_v3"
    config.model.weights = given["weights"]
    config.model.head.kind = "linear"

    config.train.method = "probe"
    config.probe.solver = "minibatch"
    config.probe.scaling = "none"
    config.train.duration = "4000 steps"
    config.train.class_weights = "balanced"
    config.train.log_every = "10 steps"
    config.train.eval_every = "100 steps"
    config.train.checkpoint_every = "500 steps"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    return config
