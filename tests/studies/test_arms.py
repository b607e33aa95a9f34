"""Arms by product, grid and draws."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.errors import UserError
from imgclf.studies.arms import Range, draws, grid, levels, product


def test_a_product_names_and_joins_its_factors():
    arms = product({"plain": {}, "flip": {"augment.flip": 0.5}}, {"": {}, "slow": {"optimizer.learning_rate": 1e-4}})
    assert arms == {
        "plain": {},
        "plain, slow": {"optimizer.learning_rate": 1e-4},
        "flip": {"augment.flip": 0.5},
        "flip, slow": {"augment.flip": 0.5, "optimizer.learning_rate": 1e-4},
    }
    assert list(levels("optimizer.learning_rate", (1e-3, 0.01))) == ["learning_rate=0.001", "learning_rate=0.01"]
    assert list(grid({"train.ema": (0.0, 0.9), "augment.flip": (0.5,)})) == ["ema=0, flip=0.5", "ema=0.9, flip=0.5"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: product([("a", {}), ("a", {"seed": 1})]), "two arms with the name 'a'"),
        (lambda: product({"a": {"seed": 1}}, {"b": {"seed": 2}}), "'b' sets 'seed', as another factor does"),
        (lambda: product(["flip"]), "an arm is a name and its fields"),
        (lambda: Range(1.0, 0.1), "needs low < high"),
        (lambda: Range(0.0, 1.0, log=True), "above 0"),
    ],
)
def test_slips(make, message):
    with pytest.raises(UserError, match=message):
        make()


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(0, 3))
def test_draws_lie_in_their_space_and_more_begin_with_the_same(count, seed):
    space = {"optimizer.learning_rate": Range(1e-4, 1e-1, log=True), "train.soup": Range(0, 3), "augment.flip": (0.0, 0.5)}
    arms = draws(space, count, seed)
    assert len(arms) == count
    for fields in arms.values():
        assert 1e-4 <= fields["optimizer.learning_rate"] <= 1e-1
        assert fields["train.soup"] in (0, 1, 2, 3)
        assert fields["augment.flip"] in (0.0, 0.5)
    assert list(draws(space, count + 5, seed).values())[:count] == list(arms.values())


def test_ranges_are_uniform_or_uniform_in_their_logarithm():
    assert Range(0.0, 4.0).at(0.25) == 1.0
    assert Range(1e-4, 1.0, log=True).at(0.5) == pytest.approx(1e-2)
    assert [Range(0, 3).at(share) for share in (0.0, 0.24, 0.26, 0.99)] == [0, 0, 1, 3]
