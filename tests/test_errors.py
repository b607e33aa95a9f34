"""Errors that speak of what the user has written."""

import pytest

from imgclf import errors
from imgclf.models.weights.pretrained import FetchError


def test_an_error_of_a_field_is_told_by_the_name_that_the_user_gave_it_and_stays_what_it_is():
    with (
        pytest.raises(FetchError, match=r"^model='resnet51' is none; config\.model\.namesake=1\.$") as caught,
        errors.under_names({"config.model.name": "model"}),
    ):
        raise FetchError("config.model.name='resnet51' is none; config.model.namesake=1.", reason="why", answered=True)
    assert caught.value.answered


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("choose another --out, or give --overwrite to replace it.", "choose another out, or give overwrite=True to replace it."),
        ("--batch-per-chip=0 is no batch", "batch_per_chip=0 is no batch"),
        ("finish it with imgclf train CONFIG --workdir=runs/a, or give --no-env", None),
        ("or give --set data.path=PATH.", "or give config.data.path=PATH."),
        ("use --config.train.method=lp_ft or fit", "use config.train.method=lp_ft or fit"),
        ("a--b, -- and 2020--2021 stay", "a--b, -- and 2020--2021 stay"),
    ],
)
def test_a_sentence_speaks_of_arguments_in_python_and_of_flags_in_a_command(written, told):
    told = told or "finish it with imgclf train CONFIG --workdir=runs/a, or give new_environment=False"
    error = errors.UserError(written)
    assert str(error) == told
    with errors.of_flags():
        assert str(error) == written
    assert str(error) == told
