"""What trains: presets, tables and stages, the statistics beside them, and training that leaves the rest alone and is quicker for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from digits_experiment import digits_config
from flax import nnx
from networks import created
from rich.console import Console

from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.models.weights.conversion import flatten
from imgclf.training import freeze, loop, optimizer, phases, schedules, sharding
from imgclf.training.state import path_name, split_model
from imgclf.workflows import train

STEPS = 100


def config_of(name: str = "mobilenet_v2_tiny", **changes):
    config = default_config()
    config.data.source, config.model.name, config.data.image_size = "digits", name, (32, 32)
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    config.update_from_flattened_dict(changes)
    return config


def abstract(config, classes: int = 3):
    return nnx.eval_shape(lambda: created(config, classes))


def plan(config, model=None):
    return freeze.create_freezing(config, model or abstract(config), STEPS, 10.0)


def sizes(freezing: freeze.Freezing, model) -> tuple[int, int]:
    """How many parameters of the backbone are frozen, and how many train."""
    params = flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    frozen = sum(leaf.size for name, leaf in params.items() if name not in freezing.trainable)
    return frozen, sum(leaf.size for leaf in params.values()) - frozen


def test_the_first_fifteen_layers_of_vgg16_hold_7635264_parameters():
    config = config_of("vgg16", **{"freeze.preset": "first_15_layers", "data.image_size": (64, 64)})
    model = abstract(config)
    frozen, trainable = sizes(plan(config, model), model)
    assert frozen == 7_635_264
    assert trainable == 14_714_688 - 7_635_264 + 512 * 3 + 3


def test_the_setup_of_the_product_photos():
    """VGG16 without its top, flattened, 256 wide, normalised, 14,951 classes, the first 15 layers frozen."""
    head = {"kind": "mlp", "flatten": True, "dense": (256,), "norm": "batch", "dropout": 0.5}
    config = config_of("vgg16", **{"freeze.preset": "first_15_layers", "data.image_size": (96, 160)})
    config.model.head.update(head)
    config.optimizer.name, config.optimizer.learning_rate = "rmsprop", 5e-7
    config.optimizer.schedule.name, config.optimizer.schedule.rate = "time", 5e-5
    model = abstract(config, 14_951)
    freezing = plan(config, model)
    assert sizes(freezing, model)[0] == 7_635_264
    trained = {name.rsplit("/", 1)[0] for name in freezing.trainable}
    assert trained == {*(f"backbone/block5/conv{i}" for i in (1, 2, 3)), "head/dense0", "head/bn0", "head/logits"}
    assert freezing.stages[0].frozen_norms == frozenset()


@pytest.mark.parametrize(
    ("preset", "trains"),
    [
        ("none", ("backbone/stem", "backbone/blocks/0", "backbone/blocks/3", "backbone/last", "head")),
        ("last_stage", ("backbone/blocks/3", "backbone/last", "head")),
        ("head", ("head",)),
    ],
)
def test_presets(preset, trains):
    freezing = plan(config_of(**{"freeze.preset": preset}))
    for part in ("backbone/stem", "backbone/blocks/0", "backbone/blocks/3", "backbone/last", "head"):
        found = any(name.startswith(part + "/") for name in freezing.trainable)
        assert found == (part in trains), part


def test_a_table_is_first_match_wins_and_complete():
    table = (("backbone/blocks/0/project/.*", False), ("backbone/(stem|blocks/0)/.*", True), (".*", False))
    freezing = plan(config_of(**{"freeze.preset": "table", "freeze.table": table}))
    assert "backbone/blocks/0/project/conv/kernel" in freezing.trainable
    assert "backbone/blocks/0/depthwise/conv/kernel" not in freezing.trainable
    # statistics stand where all parameters of the layer do
    assert freezing.stages[0].frozen_norms == {"backbone/stem/bn", "backbone/blocks/0/depthwise/bn"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ((("backbone/stemm/.*", True), (".*", False)), "matches no parameter; near misses: backbone/stem/"),
        ((("backbone/.*", True),), r"no row for parameter 'head/.*such as \('\.\*', False\) at the end"),
        (((".*", True),), "freezes every parameter"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table, message):
    with pytest.raises(UserError, match=message):
        plan(config_of(**{"freeze.preset": "table", "freeze.table": table}))


def set_statistics(model, mean: float, variance: float):
    for norm in freeze.norms(model).values():
        norm.mean[...] = jnp.full_like(norm.mean[...], mean)
        norm.var[...] = jnp.full_like(norm.var[...], variance)


@pytest.mark.parametrize(
    ("rule", "mean", "frozen", "remark"),
    [("auto", 0.0, True, "kept frozen"), ("auto", 0.1, False, ""), ("train", 0.0, False, "is another network"), ("frozen", 0.1, True, "")],
)
def test_statistics_folded_into_the_weights_stand_and_the_run_says_why(rule, mean, frozen, remark):
    config = config_of(**{"freeze.batch_norm": rule, "model.head.kind": "mlp"})
    model = created(config, 3)
    config.model.weights = "path:folded.h5"
    set_statistics(model.backbone, mean, 0.999)
    freezing = freeze.create_freezing(config, model, 60, 10.0)
    backbone = {path for path in freeze.norms(model) if path.startswith("backbone/")}
    assert freezing.stages[0].frozen_norms == (backbone if frozen else frozenset())  # the new head's are found in training
    assert remark in freezing.remark
    assert bool(freezing.remark) == bool(remark)


def test_pretrained_statistics_stand_in_trainings_too_short_for_their_running_averages():
    config = config_of()
    model = created(config, 3)
    config.model.weights = "path:torch.safetensors"
    set_statistics(model.backbone, 0.1, 2.0)
    short, long = freeze.create_freezing(config, model, 40, 10.0), freeze.create_freezing(config, model, 60, 10.0)  # momentum 0.9
    assert len(short.stages[0].frozen_norms) == len(freeze.norms(model))
    assert "40 steps are too few" in short.remark
    assert (long.stages[0].frozen_norms, long.remark) == (frozenset(), "")


def test_fresh_statistics_are_not_taken_for_folded_ones():
    assert plan(config_of()).stages[0].frozen_norms == frozenset()


def prepared(config, model):
    mesh = sharding.create_mesh()
    freezing = freeze.create_freezing(config, model, STEPS, 10.0)
    made = phases.create(config, model, freezing, schedules.create_schedule(config, STEPS, 10.0), STEPS, None, mesh)
    _, params, batch_stats = split_model(model)
    return freezing, made, made[0].first_state(params, batch_stats)


def batch_of(count: int = 8):
    rng = np.random.default_rng(0)
    return {"image": rng.integers(0, 256, (count, 32, 32, 3), np.uint8), "label": rng.integers(0, 3, count).astype(np.int32)}


def host(tree):
    """Copies: the step reuses the memory of its arguments."""
    return {name: np.array(leaf) for name, leaf in flatten(tree).items()}


@pytest.mark.parametrize("preset", ["head", pytest.param("last_stage", marks=pytest.mark.slow)])
def test_frozen_parameters_and_statistics_do_not_change_by_a_bit(preset):
    config = config_of(**{"freeze.preset": preset, "train.ema": 0.9, "optimizer.weight_decay": 0.1})
    model = created(config, 3)
    set_statistics(model, 0.1, 1.3)
    freezing, (phase,), state = prepared(config, model)
    before, stats_before = host(state.params), host(state.batch_stats)
    kept = {path_name(path) for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state) if leaf.ndim}
    for _ in range(3):
        state, _ = phase.step(state, batch_of())
    after, stats_after = host(state.params), host(state.batch_stats)
    for name, value in before.items():
        assert np.array_equal(after[name], value) == (name not in freezing.trainable), name
    for name, value in stats_before.items():
        stands = name.rsplit("/", 1)[0] in freezing.stages[0].frozen_norms
        assert np.array_equal(stats_after[name], value) == stands, name
    assert any(name.endswith("head/logits/kernel") for name in kept)
    assert not [name for name in kept if not any(name.endswith("/" + trained) for trained in freezing.trainable)]
    averaged = host(optimizer.evaluated_params(state.params, state.opt_state))
    assert averaged.keys() == after.keys()
    assert all(np.array_equal(averaged[name], after[name]) == (name not in freezing.trainable) for name in after)


def test_the_gradient_norm_is_that_of_what_trains():
    config = config_of(**{"freeze.preset": "head", "optimizer.name": "sgd", "optimizer.learning_rate": 1.0})
    _, (phase,), state = prepared(config, created(config, 3))
    before = host(state.params)
    state, metrics = phase.step(state, batch_of())
    after = host(state.params)
    moved = np.sqrt(sum(np.square(after[name] - before[name]).sum() for name in before))
    np.testing.assert_allclose(metrics["grad_norm"], moved, rtol=1e-4)


def test_what_comes_before_the_first_trained_parameter_has_no_backward_pass():
    def flops(preset: str) -> float:
        config = config_of("vgg_tiny", **{"freeze.preset": preset})
        _, (phase,), state = prepared(config, created(config, 3))
        return phase.compiled.lower(state, batch_of(), phase.scalars).cost_analysis()["flops"]

    full, last_stage, head = map(flops, ("none", "last_stage", "head"))
    assert head < 0.45 * full  # a third, when forward, gradient of the maps and gradient of the kernel cost the same
    assert head < last_stage < 0.75 * full


def test_stages_name_since_when_each_parameter_trains():
    rows = (("10 steps", "head"), ("33%", "last_stage"), ("1 epochs", "none"))
    config = config_of(**{"freeze.stages": rows, "train.accumulate": 4})
    freezing = plan(config)
    # whole updates; the last one takes what is left
    assert [(stage.start, stage.stop) for stage in freezing.stages] == [(0, 8), (8, 40), (40, STEPS)]
    since = freezing.stages[2].since
    assert (since["head/logits/kernel"], since["backbone/last/bn/scale"], since["backbone/stem/bn/scale"]) == (0, 8, 40)
    params = nnx.to_pure_dict(nnx.state(abstract(config), nnx.Param))
    assert "them trainable (head) to step 8, then" in freeze.describe(freezing, params)
    assert freeze.describe(freezing, params).endswith("then all trainable to step 100")
    with pytest.raises(UserError, match=r"\('1 epochs', 'none'\) begins after the training's 100 steps"):
        plan(config_of(**{"freeze.stages": (("80%", "head"), ("20%", "last_stage"), ("1 epochs", "none"))}))


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd"])
def test_at_a_boundary_what_trains_on_keeps_its_state_and_the_new_starts_as_at_step_one(name):
    config = config_of(**{"freeze.stages": (("3 steps", "head"), ("97 steps", "last_stage")), "optimizer.name": name, "train.ema": 0.9})
    config.optimizer.args = "momentum=0.9" if name == "sgd" else ""
    config.optimizer.weight_decay = 0.01
    _, (first, second), state = prepared(config, created(config, 3))
    for _ in range(3):
        state, _ = first.step(state, batch_of())
    kept = {path_name(path): np.array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)}
    state = second.begin(state)
    now = {path_name(path): np.array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)}
    assert kept.keys() < now.keys()
    for path, value in kept.items():
        np.testing.assert_array_equal(now[path], value)
    for path in now.keys() - kept.keys():
        if "/ema/" not in path:  # the average begins with the parameter
            assert not now[path].any(), path
    like = second.like(state)
    assert jax.tree.structure(like) == jax.tree.structure(state)
    if name != "adamw":
        return
    before = host(state.params)
    state, _ = second.step(state, batch_of())
    moved = host(state.params)["backbone/last/conv/kernel"] - before["backbone/last/conv/kernel"]
    # Adam's first step is the learning rate's size: were the count the head's, it would be three times that
    np.testing.assert_allclose(np.quantile(np.abs(moved), 0.9), config.optimizer.learning_rate, rtol=0.05)


class Killed(Exception):
    pass


def staged(**changes):
    stages = (("8 steps", "head"), ("8 steps", "last_stage"), ("14 steps", "none"))
    return digits_config(**{"freeze.stages": stages, "model.cnn.widths": (8, 8), "optimizer.args": "b1=0.8", **changes})


@pytest.mark.slow  # test_resume.py kills runs of one stage
def test_killed_in_every_stage_and_at_both_boundaries_a_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    straight = train.train(staged(), tmp_path / "straight", console=Console(quiet=True))
    assert straight["params_trainable"] == straight["params_total"]
    add = loop.MetricsWindow.add
    for kill_at in (6, 9, 14, 17, 25):  # checkpoints are at multiples of 4, so that 9 and 17 resume right at the boundaries

        def killed(window, step, metrics, kill_at=kill_at):
            if step == kill_at:
                raise Killed
            add(window, step, metrics)

        monkeypatch.setattr(loop.MetricsWindow, "add", killed)
        with pytest.raises(Killed):
            train.train(staged(), tmp_path / "killed", console=Console(quiet=True))
    monkeypatch.undo()
    assert train.train(staged(), tmp_path / "killed", console=Console(quiet=True))["params_sha256"] == straight["params_sha256"]


def test_kernels_before_a_frozen_norm_learn_more_slowly_by_its_gain():
    """With Adam's steps of one size, the map that the two are moves as far in every layer."""
    config = config_of(**{"freeze.batch_norm": "frozen", "optimizer.undo_norm_gain": True})
    model = created(config, 3)
    for path, norm in freeze.norms(model).items():
        norm.scale[...], norm.var[...] = jnp.full_like(norm.scale[...], 2.0), jnp.full_like(norm.var[...], 0.25 - norm.epsilon)
        if path.endswith("depthwise/bn"):
            norm.scale[...] = jnp.full_like(norm.scale[...], 0.1)  # a gain below 1 leaves the rate as it is
    every = frozenset(freeze.norms(model))
    gains = freeze.norm_gains(model, every)
    kernels = {name for name in flatten(split_model(model)[1]) if name.endswith("conv/kernel") and "depthwise" not in name}
    assert gains == dict.fromkeys(kernels, 4.0)
    assert freeze.norm_gains(model, frozenset({"backbone/stem/bn"})) == {"backbone/stem/conv/kernel": 4.0}
    phase = phases.create(config, model, plan(config, model), lambda step: 0.01, 10, None, sharding.create_mesh())[0]
    rates = dict(phase.program.optimizer.rates)
    assert rates["backbone/stem/conv/kernel"] == 0.25
    assert rates["backbone/blocks/0/depthwise/conv/kernel"] == rates["head/logits/kernel"] == 1
