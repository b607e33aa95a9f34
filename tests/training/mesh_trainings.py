"""Trains a tiny network on meshes of 8 simulated devices and on one device, in a process of its own, and says how far they are apart."""

import json
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from imgclf.config import Config, default_config
from imgclf.methods import resolve
from imgclf.training import freeze, initialization, schedules, sharding
from imgclf.training.checkpoint import Checkpoints
from imgclf.training.phases import Phase, create
from imgclf.training.state import TrainState, split_model, tree_sha256
from imgclf.training.step import make_eval_step

DEVICES, CLASSES, BATCH, STEPS = 8, 24, 16, 3
MIXED = {"augment.mixup": 0.2, "augment.cutmix": 1.0, "train.label_smoothing": 0.1}
FIELDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate": {"train.accumulate": 2},
    "remat": {"train.remat": (("backbone", "cheap"), ("head/dense0", "all"))},
    "ema": {"train.ema": 0.9},
    "frozen": {"freeze.preset": "table", "freeze.table": (("backbone/bn0/.*", True), (".*", False))},
    "mixing": MIXED,
}
FIELDS["all"] = {name: value for fields in FIELDS.values() for name, value in fields.items()}
# without the draws of mixing, which take most of the compilation
QUICK = {name: value for name, value in FIELDS["all"].items() if name not in ("augment.mixup", "augment.cutmix")}
WEIGHTED_AND_TAUGHT = ("mixing", "all", "quick")  # these have class weights and a teacher's labels, too


def config_of(fields: str, fsdp: int, model: int) -> Config:
    config = default_config()
    config.data.image_size, config.loader.batch_size = (8, 8), BATCH
    config.model.cnn.widths, config.model.cnn.dense, config.model.cnn.dropout = (8,), (16,), 0.2
    config.optimizer.name, config.optimizer.args, config.optimizer.learning_rate = "sgd", "momentum=0.9", 0.05
    config.mesh.fsdp, config.mesh.model, config.mesh.split_from_mb = fsdp, model, 0.0004
    config.mesh.rules = (("head/dense0/kernel", "-, model"),) if fields in ("all", "quick") else ()
    config.update_from_flattened_dict(QUICK if fields == "quick" else FIELDS[fields])
    return resolve.resolve(config, CLASSES)


def batch_of(step: int, fields: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    batch = {"image": rng.integers(0, 256, (BATCH, 8, 8, 3), np.uint8), "label": rng.integers(0, CLASSES, BATCH, np.int32)}
    if fields in WEIGHTED_AND_TAUGHT:
        batch["soft_label"] = (0.3 * rng.dirichlet(np.ones(CLASSES), BATCH)).astype(np.float32)
    return batch


def phase_of(fields: str, fsdp: int, model: int, devices: int) -> tuple[Phase, TrainState]:
    """The phase of a training and its first state."""
    config = config_of(fields, fsdp, model)
    mesh = sharding.create_mesh(jax.devices()[:devices], config.mesh)
    network = initialization.create_model(config, CLASSES, mesh, tell=print)
    weights = np.linspace(0.5, 2, CLASSES, dtype=np.float32) if fields in WEIGHTED_AND_TAUGHT else None
    freezing = freeze.create_freezing(config, network, total_steps=8, steps_per_epoch=100.0)
    (phase,) = create(config, network, freezing, schedules.create_schedule(config, 8, 100.0), 8, weights, mesh)
    return phase, phase.first_state(*split_model(network)[1:])


def trained(phase: Phase, state: TrainState, fields: str) -> tuple[TrainState, list[dict[str, float]]]:
    told = []
    for step in range(STEPS):
        state, metrics = phase.step(state, sharding.put_batch(batch_of(step, fields), phase.layout.mesh))
        told.append(jax.tree.map(float, metrics))
    return state, told


def distance(one: Any, other: Any) -> float:
    """The largest difference of two trees' leaves, over the largest value of each leaf."""

    def of_leaves(a: Any, b: Any) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-3))

    return max(map(of_leaves, jax.tree.leaves(one), jax.tree.leaves(other)))


def logits_of(phase: Phase, state: TrainState, config: Config) -> tuple[np.ndarray, list[str]]:
    """What evaluation says of a batch, and the shapes that its devices gather whole."""
    mesh = phase.layout.mesh
    step = make_eval_step(config, phase.program.graphdef, mesh)
    batch = batch_of(STEPS, "") | {"index": np.arange(BATCH), "mask": np.ones(BATCH, bool)}
    arguments = state.params, state.batch_stats, sharding.put_batch(batch, mesh)
    return np.asarray(step(*arguments)["logits"]), gathered(step.lower(*arguments).compile().as_text())


def exchanged(phase: Phase, state: TrainState, fields: str) -> list[str]:
    """Shape and kind of what the step's devices gather whole: `f32[16,24]`, …"""
    batch = sharding.put_batch(batch_of(0, fields), phase.layout.mesh)
    text = phase.compiled.lower(state, batch, phase.scalars_on_devices).compile().as_text()
    return gathered(text)


def gathered(text: str) -> list[str]:
    """Shapes of all-gathers in a compiled program."""
    return re.findall(r"= (\w+\[[\d,]*\])\S* all-gather\(", text)


def largest_part(state: TrainState) -> dict[str, int]:
    """The elements of each split leaf that one device has, and those of the whole."""
    leaves = [leaf for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated]
    return {"part": sum(leaf.addressable_shards[0].data.size for leaf in leaves), "whole": sum(leaf.size for leaf in leaves)}


def main(combinations: list[tuple[str, int, int]], folder: Path) -> None:
    """Each of (fields, fsdp, model); writes `found.json`."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    jax.config.update("jax_platforms", "cpu")
    alone, found = {}, []
    for fields, fsdp, model in combinations:
        if fields not in alone:
            phase, state = phase_of(fields, 1, 1, 1)
            like = phase.like(state)
            state, told = trained(phase, state, fields)
            alone[fields] = (like, state, told, logits_of(phase, state, config_of(fields, 1, 1))[0])
        like, one, told_by_one, logits = alone[fields]
        phase, state = phase_of(fields, fsdp, model, DEVICES)
        about: dict[str, Any] = {"fields": fields, "fsdp": fsdp, "model": model, **largest_part(state)}
        about["gathered"] = exchanged(phase, state, fields)
        state, told = trained(phase, state, fields)
        about["state"], about["metrics"] = distance(one, state), distance(told_by_one, told)
        said, whole = logits_of(phase, state, config_of(fields, fsdp, model))
        about["logits"], about["gathered"] = distance(logits, said), about["gathered"] + whole
        about["still"] = largest_part(state) == {name: about[name] for name in ("part", "whole")}
        found.append(about)
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(state, {})  # by 8 devices, read by one
    restored = checkpoints.restore(lambda step: like, Console(quiet=True))
    checkpoints.close()
    assert restored is not None
    sha256 = [tree_sha256(tree) for tree in (state, restored.state)]
    (folder / "found.json").write_text(json.dumps({"found": found, "sha256": sha256, "steps": int(restored.state.step)}))
