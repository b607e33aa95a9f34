"""Numbers as people read them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf import formatting


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "–"),
        (0, "0 %"),
        (1.0, "100 %"),
        (0.9722222, "97.2 %"),
        (0.9996, "99.96 %"),
        (0.99999, "99.999 %"),
        (0.0001, "0.01 %"),
        (0.05, "5.0 %"),
    ],
)
def test_percent(share, text):
    assert formatting.percent(share) == text.replace(" ", "\u00a0")


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_percent_claims_all_or_none_only_for_all_or_none(counts):
    right, n = counts
    text = formatting.percent(right / n)
    assert (float(text[:-2]) == 100) == (right == n)
    assert (float(text[:-2]) == 0) == (right == 0)
    assert float(text[:-2]) == pytest.approx(100 * right / n, abs=0.05 + 1e-9)


def test_intervals_show_their_width():
    assert formatting.interval((0.95, 0.985)) == "95.0–98.5\u00a0%"
    assert formatting.interval((0.7612, 0.7625)) == "76.12–76.25\u00a0%"
    assert formatting.interval((0.0, 0.2)) == "0–20.0\u00a0%"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (1797, "1,797"), (12.0, "12"), (0.0712345, "0.0712"), (12.345, "12.3"), (1e-6, "1.00e-06"), (-0.5, "-0.500")],
)
def test_number(value, text):
    assert formatting.number(value) == text


def test_flops():
    texts = {None: "–", 0: "0 FLOP", 999: "999 FLOP", 1000: "1 kFLOP", 4_069_838: "4.07 MFLOP", 2.767e10: "27.7 GFLOP", 3e19: "30 EFLOP"}
    assert {count: formatting.flops(count).replace("\u00a0", " ") for count in texts} == texts


def test_counts_and_durations():
    assert [formatting.count(n, "class", "classes") for n in (0, 1, 1797)] == ["0 classes", "1 class", "1,797 classes"]
    seconds = {0.42: "0.42 s", 12.3: "12 s", 59.4: "59 s", 59.9: "1 min", 60: "1 min", 185: "3 min 5 s", 3599.7: "1 h", 7800: "2 h 10 min"}
    assert {s: formatting.duration(s) for s in seconds} == seconds


def test_a_difference_has_a_sign_that_is_no_hyphen():
    assert [formatting.points(-0.0417), formatting.points(0.5, 0)] == ["−4.2", "+50"]
    assert [formatting.signed(-3), formatting.signed(0.0432, 3), formatting.signed(-0.0741, 3)] == ["−3", "+0.043", "−0.074"]
