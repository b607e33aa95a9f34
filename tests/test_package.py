"""The public names of the package: lazily imported, all of them there."""

import imgclf
from imgclf.config import default_config, flatten
from imgclf.workflows.asked import asked_for


def test_every_public_name_is_there():
    for name in imgclf.__all__:
        assert callable(getattr(imgclf, name)), name
        assert name in dir(imgclf)
    assert set(imgclf._HOMES) == set(imgclf.__all__) - {"UserError"}


def test_a_config_is_not_changed_by_what_is_set_in_a_copy():
    config = default_config()
    for fields in ({"seed": 3}, ["seed=2", "seed=3"]):
        assert asked_for(config, fields).config.seed == 3
    assert flatten(config) == flatten(default_config())
