"""The work of training is counted: the same for equal networks, whatever the clock says, and whether or not a run was interrupted."""

import json

import jax
import jax.numpy as jnp
import pytest
from digits_experiment import digits_config
from rich.console import Console

from imgclf.training import work
from imgclf.workflows import train

QUIET = Console(quiet=True)
FEW = {"train.duration": "6 steps", "train.eval_every": "6 steps", "train.checkpoint_every": "100%", "train.ema": 0.0}


def counted(workdir, **changes) -> int:
    train.train(digits_config(**(FEW | changes)), workdir, console=QUIET)
    return json.loads((workdir / "results.json").read_text())["train_flops"]


def test_a_product_of_matrices_is_counted_by_hand():
    product = jax.jit(lambda a, b: a @ b)
    arguments = jnp.ones((5, 7)), jnp.ones((7, 3))
    assert work.flops(product, *arguments) == 2 * 5 * 7 * 3
    assert work.flops(product, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arguments)) == 2 * 5 * 7 * 3
    assert work.total(1, 2) == 3
    assert work.total(1, None) is None


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> int:
    """What six steps cost."""
    return counted(tmp_path_factory.mktemp("base") / "run")


def test_equal_networks_cost_the_same_and_wider_ones_more(base, tmp_path):
    assert base > 0
    assert base % 6 == 0
    assert counted(tmp_path / "other", **{"optimizer.learning_rate": 1e-9, "augment.flip": 0.5}) == base
    assert counted(tmp_path / "wider", **{"model.cnn.widths": (16,)}) > 1.5 * base


def test_steps_add_up_and_an_interrupted_run_counts_each_of_them_once(base, tmp_path):
    class Stop(Exception):
        pass

    def stop(number, values):
        if number == 2:
            raise Stop

    changes = {"train.duration": "12 steps", "train.eval_every": "4 steps", "train.checkpoint_every": "4 steps"}
    with pytest.raises(Stop):
        train.train(digits_config(**(FEW | changes)), tmp_path / "run", console=QUIET, on_evaluation=stop)
    resumed = counted(tmp_path / "run", **changes)
    assert resumed == 2 * base  # twice the steps; evaluations are no training
    assert counted(tmp_path / "run", **changes) == resumed  # a finished run keeps its number


@pytest.mark.slow
def test_a_probe_costs_its_features_and_lp_ft_both(tmp_path):
    plain = {"augment.rotate": 0.0, "augment.shift": (0.0, 0.0), "model.cnn.dense": (), "model.cnn.dropout": 0.0, "probe.l2": (0.01,)}
    probe = counted(tmp_path / "probe", **plain, **{"train.method": "probe"})
    assert counted(tmp_path / "again", **plain, **{"train.method": "probe"}) == probe  # its features came from the cache
    fit = counted(tmp_path / "fit", **plain, **{"train.method": "fit", "model.head.kind": "linear"})
    both = counted(tmp_path / "both", **plain, **{"train.method": "lp_ft"})
    assert both == probe + fit
