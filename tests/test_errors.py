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
