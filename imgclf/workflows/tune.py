"""Which forms the convolutions of a training have: measured on this machine, or those that a run has noted."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from imgclf import models
from imgclf.config import Config
from imgclf.errors import UserError
from imgclf.methods import resolve
from imgclf.models import forms
from imgclf.models.cpu import chosen, onednn, tuning
from imgclf.models.cpu.chosen import Layer, Table
from imgclf.models.cpu.tuning import Measured
from imgclf.runtime import compilation_cache, processor
from imgclf.training import sharding
from imgclf.training.plan import TrainingPlan
from imgclf.workflows.asked import Fields, asked_for
from imgclf.workflows.console import or_terminal

FORMS = "forms"  # in a run's environment.json
_LONG_SECONDS = 1800  # a training that takes at least so long is tuned, where the config leaves that open
_SPEED = 80e9  # operations that a core does in a second, about, to tell a long training from a short one


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What tuning has found.

    Attributes:
      layers: of each convolution of a training step, what was measured of its parts.
      table: the forms of those layers that gain something by another than the usual one.
      note: why oneDNN was not among the forms; "" where it was.
    """

    layers: dict[Layer, list[Measured]]
    table: Table
    note: str


def tune(config: Config | str | os.PathLike[str], *, fields: Fields = (), console: Console | None = None) -> Tuned:
    """Times the forms of all convolutions of a config's training step on this machine, and keeps what it finds in the cache folder.

    A training with `train.forms=on` does so itself, and finds here what was kept. It takes some seconds a layer, once.

    Args:
      config: the whole config, or what `load_config` reads one from. No image is read.
      fields: what is set in it.
      console: for the progress bar; None = the terminal.

    Raises:
      UserError: for a config that is not valid.

    Example:
      >>> tiny = {"data.image_size": 16, "model.name": "resnet_tiny", "loader.batch_size": 2}
      >>> found = imgclf.tune("folder:photos", fields=tiny, console=quiet)
      >>> [part.part for part in next(iter(found.layers.values()))]
      ['forward', 'input_gradient', 'kernel_gradient']
    """
    console = or_terminal(console)
    compilation_cache.enable()
    resolved = resolve.resolve(resolve.check(asked_for(config, fields).config), 10)
    mesh = sharding.create_mesh(sizes=resolved.mesh)
    with forms.on_devices_of(mesh):
        model = models.abstract(resolved, 10)
    return _tuned(resolved, model, mesh, console)


def forms_for(config: Config, model: Any, mesh: Mesh, images: int, noted: Path | None, console: Console) -> Table | None:
    """The forms of a training's convolutions; None = the usual ones.

    A run that has begun keeps its forms, whatever machine goes on with it, so that its bits stay.

    Args:
      config: of the training, resolved.
      model: the network.
      mesh: of all devices.
      images: that it trains on.
      noted: the folder of the run that is continued, or whose config is taken; None for a new one.
      console: where to tell what happens.
    """
    if config.train.forms == "off":
        return None
    with forms.on_devices_of(mesh):
        if not forms.on_one_cpu():
            return None
    if noted is not None:
        return _noted(noted, config, console)
    if config.train.forms == "auto" and _seconds(config, model, mesh, images) < _LONG_SECONDS:
        return None
    found = _tuned(config, model, mesh, console)
    if found.note:
        console.print(f"Forms of convolutions are chosen without oneDNN: {found.note}.", highlight=False, markup=False)
    return found.table


def described(table: Table | None) -> dict[str, Any]:
    """What a run notes of its forms, to be found by `forms_for`; nothing where they are the usual ones."""
    return {} if table is None else {FORMS: table.to_json()}


def _noted(run: Path, config: Config, console: Console) -> Table | None:
    path = run / "environment.json"
    try:
        environment = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        table = Table.from_json(environment[FORMS]) if FORMS in environment else None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} is damaged, which says what forms the run's convolutions have ({error}): put a copy of it back, or begin a new run in "
            "another folder."
        ) from error
    if table is None:
        if config.train.forms == "on":  # of "auto", a short training notes none
            console.print("[yellow]The run has noted no forms of its convolutions: they have the usual ones.[/]", highlight=False)
        return None
    if table.needs_onednn and (why := onednn.missing()) is not None:
        console.print(
            f"[yellow]The run has convolutions by oneDNN, and {why}: they have the usual forms here, and other last bits.[/]",
            highlight=False,
        )
        return None
    here = processor.describe()
    if any(environment.get(name) != here[name] for name in here):
        console.print(
            f"The forms of convolutions were measured on another CPU ({environment.get('cpu')}); they stay as they are.",
            highlight=False,
            markup=False,
        )
    return table


def _tuned(config: Config, model: Any, mesh: Mesh, console: Console) -> Tuned:
    found = tuning.tune(_layers(config, model, mesh), console)
    return Tuned(found, tuning.table_of(found), onednn.missing() or "")


def _layers(config: Config, model: Any, mesh: Mesh) -> list[Layer]:
    """The convolutions of a training step, in their order; one that is there twice stands there once."""
    graphdef, state = nnx.split(model)
    image = jax.ShapeDtypeStruct((config.loader.batch_size, *config.data.image_size, 3), jnp.float32)

    @forms.on_devices_of(mesh)
    def step(state: nnx.State, image: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state)(image, train=True, key=jax.random.key(0))

    with chosen.noting() as layers:
        jax.eval_shape(step, state, image)
    return list(layers)


def _seconds(config: Config, model: Any, mesh: Mesh, images: int) -> float:
    """How long the training's convolutions take, about."""
    multiplications = 0
    for layer in _layers(config, model, mesh):
        batch, height, width, features = layer.outputs
        kh, kw, channels, _ = layer.kernel
        multiplications += batch * height * width * features * kh * kw * channels
    steps = TrainingPlan.create(config, images / config.loader.batch_size).total
    return 3 * 2 * multiplications * steps / (_SPEED * processor.cores())
