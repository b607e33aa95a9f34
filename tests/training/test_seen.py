"""Views that are drawn again are what the training step saw."""

import numpy as np
import pytest
from digits_experiment import digits_config

from imgclf.data import pipeline
from imgclf.data.splits import assign_splits
from imgclf.data.table import load_dataset
from imgclf.methods import resolve
from imgclf.training import batch_augment, mixing, seen


@pytest.fixture(scope="module")
def config():
    changes = {"augment.hue": 20.0, "augment.brightness": 0.3, "augment.erase": 0.5, "augment.erase_fill": "noise"}
    return resolve.resolve(digits_config(**changes, **{"loader.batch_size": 16}), 10)


@pytest.fixture(scope="module")
def dataset(config):
    return assign_splits(load_dataset(config), config)


@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.4, "cutmix": 1.0, "mix_probability": 0.8, "erase_fill": "mean"}], ids=["alone", "mixed"])
def test_views_are_the_steps(config, dataset, mixed):
    config = config.copy_and_resolve_references()
    config.augment.update(mixed)
    config.loader.sampling = "sqrt" if mixed else "natural"
    row = int(np.flatnonzero(dataset.table["split"] == "train")[3])
    found = seen.views(config, dataset, row, range(5))
    kinds = set()
    for view in found:
        with pipeline.train_batches(dataset, config, start_step=view.step, num_steps=1) as batches:
            (batch,) = batches
        assert batch["index"][view.place] == row
        mix = None
        if mixed:
            mix = seen._drawn(config.seed, view.step, mixing.parameters(config), size=(8, 8))
            if float(mix.share) < 1:
                assert batch["index"][-1 - view.place] == view.partner.row
                assert view.partner.share == float(mix.share)
                kinds.add(view.partner.box is None)
            else:
                assert view.partner is None
                kinds.add("alone")
        images = seen._augmented(batch_augment.inputs(batch), tuple(config.data.mean), tuple(config.data.std), mix)
        np.testing.assert_array_equal(view.image, images[view.place])
    assert len({view.step for view in found}) == 5
    assert len(kinds) == (3 if mixed else 0)
