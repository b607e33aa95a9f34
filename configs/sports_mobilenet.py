"""The transfer model of the “rugby or soccer” tutorial: frozen MobileNetV2, on a folder of classes, split or not.

Its hyper-parameters: 224x224, whole photos squashed, as Keras loads them; global average pooling; dropout 0.2; Dense 2; Adam 1e-5, batch
32, 500 epochs; here on features that are computed once. Its slip is repaired: the loss gets logits, not a softmax. As published the rate is
so small that after 500 epochs the loss still falls; the logistic probe solves the same layer to its optimum in a second, with a penalty in
place of dropout: --set probe.solver=logistic --set probe.scaling=standardize. Keras's own weights: weights=path:FILE or
keras/mobilenet_v2_1.0_224.
Cost: 278 photos on 2 CPU cores: 6 s for their features, once, and 10 s for 500 epochs. Expected: the tutorial states accuracy 0.91 on its
610 test photos, 0.83 for the CNN of the config sports_cnn; experiments/README.md compares both on our data.
Command: imgclf train sports_mobilenet:PATH
"""

from pathlib import Path

from imgclf.config import Config, default_config, parse_config_argument
from imgclf.errors import UserError


def get_config(argument: str = "") -> Config:
    given = parse_config_argument(argument, weights="timm/mobilenetv2_100.ra_in1k")
    path = given["path"]
    if not path:
        raise UserError("The config sports_mobilenet needs a folder of classes: sports_mobilenet:PATH.")
    config = default_config()
    config.name = f"sports_mobilenet-{Path(path).resolve().name}"
    config.data.source = "folder"
    config.data.path = path
    config.data.image_size = (224, 224)

    config.model.name = "mobilenet_v2"
    config.model.weights = given["weights"]
    config.model.head.kind = "linear"
    config.model.head.dropout = 0.2

    config.train.method = "probe"
    config.probe.solver = "minibatch"
    config.probe.scaling = "none"
    config.train.duration = "500 epochs"
    config.train.log_every = "5 epochs"
    config.train.eval_every = "5 epochs"
    config.train.checkpoint_every = "100 epochs"
    config.optimizer.name = "adam"
    config.optimizer.args = "eps=1e-7"  # Keras's Adam
    config.optimizer.learning_rate = 1e-5
    return config
