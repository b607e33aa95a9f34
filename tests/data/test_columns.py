import os
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.data.columns import Coded, Texts, shared

names = st.lists(st.binary(max_size=6).filter(lambda name: b"\0" not in name).map(os.fsdecode), max_size=8)


@given(names, st.data())
def test_texts_are_a_sequence_like_the_list_that_they_were_made_of(texts, data):
    compact = Texts.of(texts)
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=5)) if texts else []
    assert list(compact) == texts
    assert len(compact) == len(texts)
    assert list(compact.take(np.array(rows, np.int64))) == [texts[row] for row in rows]
    assert list(compact[1:]) == texts[1:]
    assert Texts.from_arrow(pa.chunked_array([compact.to_arrow()])) == compact
    assert compact.is_ascii == all(text.isascii() for text in texts)


@given(names, st.dictionaries(st.text(max_size=2), st.text(max_size=2)))
def test_coded_texts_say_what_the_list_said(texts, renamed):
    coded = Coded.of(texts)
    assert list(coded) == texts
    assert coded.counts() == {name: texts.count(name) for name in dict.fromkeys(texts)}
    assert list(coded.renamed(renamed)) == [renamed.get(text, text) for text in texts]
    known = sorted(set(texts))
    assert [known[place] for place in coded.positions(known)] == texts


def test_columns_of_pandas_are_those_that_lists_would_make():
    texts = ["a", "bü", "", "a"]
    for compact in (Texts.of(texts), Coded.of(texts)):
        pd.testing.assert_series_equal(compact.to_pandas(), pd.Series(texts, dtype="str"))


@pytest.mark.usefixtures("cache")
def test_a_large_array_is_sent_as_the_name_of_its_file_and_its_parts_as_they_are():
    array = np.arange(200_000)
    mapped = shared(array)
    assert len(pickle.dumps(mapped)) < 500
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mapped)), array)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mapped[5:9])), array[5:9])
    assert shared(array).file == mapped.file
    assert shared(array + 1).file != mapped.file
    assert shared(array[:10]).base is array  # too small for a file
    texts = Texts.of([f"{number:06d}" for number in range(200_000)])
    sent = pickle.dumps(texts.shared())
    assert len(sent) < 1000
    assert pickle.loads(sent) == texts
