"""Trainings that can't begin, told before any work."""

import pytest
from flax import nnx

from imgclf import models
from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.methods import resolve
from imgclf.training import setup


@pytest.mark.parametrize(("flatten", "size", "told"), [(False, (33, 40), ""), (False, (3, 3), "too small"), (True, (33, 40), "one size")])
def test_training_images_of_another_size_are_for_models_without_parameters_of_places(flatten, size, told):
    config = default_config()
    config.data.image_size, config.augment.image_size = (64, 64), size
    config.model.cnn.widths, config.model.cnn.flatten = (4, 4), flatten
    config = resolve.resolve(config, 3)
    model = nnx.eval_shape(lambda: models.create(config, 3))
    if told:
        with pytest.raises(UserError, match=told):
            setup.check_train_size(config, model)
    else:
        setup.check_train_size(config, model)
