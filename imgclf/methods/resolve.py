"""From a config as it was written to the one that a run trains by: every check and every choice that follows from it, made once.

`check` does what needs no data, so that a slip is told at once; `resolve` settles what depends on the number of classes. Nothing downstream
checks or chooses again: models, methods and the saved `config.json` all take what `resolve` returns.
"""

from imgclf.config import Config, validation
from imgclf.data import augment
from imgclf.data.augment import policies
from imgclf.errors import UserError
from imgclf.models.weights import pretrained
from imgclf.training import mixing, optimizer_names, sharding


def check(config: Config, devices: int | None = None) -> Config:
    """Makes every check that needs no data; returns a copy of the config in which stands what `train.method` asks of other fields.

    Args:
      config: the whole config.
      devices: how many the batches are split among; None = as many as all processes have.

    Raises:
      UserError: for fields that are not valid or don't go together, batches that don't divide among the devices, and an optimizer, a model
        or weights that don't exist.
    """
    config = config.copy_and_resolve_references()
    validation.validate(config)
    policies.check(config)
    sharding.check_batch_size(config.loader.batch_size, "loader.batch_size", config.mesh, devices)
    sharding.check_batch_size(config.loader.eval_batch_size, "loader.eval_batch_size", config.mesh, devices)
    optimizer_names.check(config)
    pretrained.check_name(config.model.name)
    _settle_method(config)
    pretrained.resolve(config)  # finds the weights, or says that they don't exist
    return config


def resolve(config: Config, num_classes: int) -> Config:
    """Returns a copy of a checked config in which nothing is left to be chosen.

    What `data.mean`, `data.std`, `model.variant` and `model.head.kind` leave to the weights stands there explicitly, so that the model can
    be built without them afterwards; and so does `train.method`. Its "auto" is "lp_ft" where there are weights and the head is a new one
    with a single layer, else "fit".

    Args:
      config: what `check` has returned.
      num_classes: of the data.
    """
    config = pretrained.resolve(config, num_classes)
    if config.train.method == "auto":
        probe_first = config.model.weights != "none" and config.model.head.kind in ("linear", "norm")
        config.train.method = "lp_ft" if probe_first else "fit"
    return config


def _settle_method(config: Config) -> None:
    """Writes into the config what its method asks of other fields.

    A probe's head is a new one where `model.head.kind` is "auto". Distortions without `probe.views` can't come from a cache: the head is
    then trained by `fit` with everything else frozen, as retrain.py does.
    """
    train, probe = config.train, config.probe
    distorted = not augment.is_neutral(config.augment) or mixing.parameters(config)
    if train.method == "probe" and probe.solver == "minibatch" and not probe.views and distorted:
        train.method, config.freeze.preset = "fit", "head"
    if train.method in ("probe", "lp_ft"):
        _settle_head(config)


def _settle_head(config: Config) -> None:
    """Makes `model.head` one that pooled features can train."""
    head, solver = config.model.head, config.probe.solver
    if head.kind == "auto":
        head.kind = pretrained.new_head(config)
    fits = head.kind in ("linear", "norm") or (solver == "minibatch" and head.kind == "mlp" and not head.flatten)
    if not fits:
        kind = f"{head.kind!r} with flatten" if head.kind == "mlp" and head.flatten else repr(head.kind)
        way_out = "config.train.method='fit'" if head.kind != "mlp" or head.flatten else "config.probe.solver='minibatch'"
        raise UserError(
            f"config.model.head.kind={kind} can't be solved by config.probe.solver={solver!r} on averaged features; "
            f"use head.kind='linear' or 'norm', or {way_out}."
        )
