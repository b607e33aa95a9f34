"""The folds of cross-validation."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.probes.folds import assign_folds, possible_folds


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), folds=st.integers(2, 5))
def test_folds_hold_every_class_evenly_and_every_group_whole(seed, folds):
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 3
    groups = [f"{label}-{group}" for label, group in zip(labels, rng.integers(0, 14, 60), strict=True)]
    fold = assign_folds(labels, groups, folds, seed, "abc", "")
    assert all(len(set(fold[np.array(groups) == group])) == 1 for group in groups)
    assert all(set(fold[labels == label]) == set(range(folds)) for label in range(3))
    even = assign_folds(labels, None, folds, seed, "abc", "")
    counts = np.array([np.bincount(even[labels == label], minlength=folds) for label in range(3)])
    assert counts.max() - counts.min() <= 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), folds=st.integers(3, 12), sizes=st.lists(st.integers(2, 25), min_size=2, max_size=6), data=st.data())
def test_small_classes_are_in_as_many_folds_as_they_have_groups(seed, folds, sizes, data):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    folds = possible_folds(labels, np.arange(len(labels)), folds)
    groups = np.arange(len(labels)).astype(str).astype(object)
    fold = assign_folds(labels, groups, folds, seed, "abcdef", "")
    for label, size in enumerate(sizes):
        assert len(set(fold[labels == label])) == min(size, folds)
    assert np.bincount(fold, minlength=folds).min() >= 1
    # a copy in another class keeps to the fold of its original, and no class is left without an example elsewhere
    one, other = data.draw(st.integers(0, len(labels) - 1)), data.draw(st.integers(0, len(labels) - 1))
    groups[one] = groups[other]
    fold = assign_folds(labels, groups, folds, seed, "abcdef", "")
    assert fold[one] == fold[other]
    assert all(len(set(fold[labels == label])) > 1 for label in range(len(sizes)) if len(set(groups[labels == label])) > 1)
