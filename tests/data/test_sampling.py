"""The order of training: class frequencies, no repeats before all have come, and the way back from an example to its place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.data.sampling import Sampler

labelings = st.lists(st.integers(0, 4), min_size=2, max_size=40).map(np.array)
rules = st.sampled_from(["natural", "balanced", "sqrt"])


def shown(sampler: Sampler, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(map(np.concatenate, zip(*(sampler.epoch(number) for number in range(epochs)), strict=True)))


@settings(max_examples=25, deadline=None)
@given(labels=labelings, rule=rules, seed=st.integers(0, 9))
def test_classes_have_their_shares_and_examples_their_turns(labels, rule, seed):
    sampler, count = Sampler(seed, labels, rule), len(labels)
    sizes = np.bincount(labels)
    weights = {"natural": sizes, "balanced": sizes > 0, "sqrt": np.sqrt(sizes)}[rule]
    for epochs in (1, 3, 7):
        examples, times = shown(sampler, epochs)
        assert len(examples) == epochs * count
        expected = epochs * count * weights / weights.sum()
        assert np.abs(np.bincount(labels[examples], minlength=len(sizes)) - expected).max() <= 1.001
        for label in np.flatnonzero(sizes):
            members = np.flatnonzero(labels == label)
            often = np.bincount(examples, minlength=count)[members]
            assert often.max() - often.min() <= 1
            for member in members[:3]:  # each time it comes it has been shown once more
                assert sorted(times[examples == member]) == list(range((examples == member).sum()))


@settings(max_examples=25, deadline=None)
@given(labels=labelings, rule=rules, data=st.data())
def test_place_is_the_inverse(labels, rule, data):
    sampler = Sampler(0, labels, rule)
    example, often = data.draw(st.integers(0, len(labels) - 1)), data.draw(st.integers(0, 20))
    number, position = divmod(sampler.place(example, often), len(labels))
    examples, times = Sampler(0, labels, rule).epoch(number)  # asked directly: an epoch needs none before
    assert (examples[position], times[position]) == (example, often)


def test_natural_is_the_permutation_it_was():
    examples, times = Sampler(7, np.zeros(6, np.int64), "natural").epoch(2)
    assert examples.tolist() == [4, 2, 1, 0, 3, 5]
    assert times.tolist() == [2] * 6


@pytest.mark.parametrize("rule", ["balanced", "sqrt"])
def test_late_epochs_are_as_quick_and_exact(rule):
    labels = np.repeat([0, 1, 2], [1, 10, 989])
    examples, times = Sampler(0, labels, rule).epoch(10**7)
    assert len(examples) == 1000
    assert times.min() >= 10**6
