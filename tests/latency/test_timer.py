"""Statistics of samples, and how often a call is made for them."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.latency.paired import measure_paired
from sparsevit.latency.timer import LEAST_REPEATS, Latency, measure, timed_ms, warm_up

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def brief_timing():
    """Not here."""


class Counted:
    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.calls = 0

    def __call__(self):
        self.calls += 1
        time.sleep(self.seconds)


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=60))
def test_statistics_are_numpys(samples):
    taken = Latency.of(samples, warmup=3)
    ordered = np.sort(samples)
    drop = len(ordered) // 4
    close = {"rel": 1e-9, "abs": 1e-9}
    assert taken.mean_ms == pytest.approx(ordered[drop : len(ordered) - drop].mean(), **close)
    assert taken.median_ms == pytest.approx(np.median(ordered), **close)
    assert taken.std_ms == pytest.approx(ordered.std(), rel=1e-6, abs=1e-6)
    assert taken.p95_ms == np.percentile(ordered, 95, method="inverted_cdf")
    assert (taken.min_ms, taken.max_ms) == (ordered[0], ordered[-1])
    assert (taken.repeats, taken.warmup) == (len(samples), 3)
    assert taken.min_ms <= taken.median_ms <= taken.p95_ms <= taken.max_ms


def test_a_quarter_at_each_end_does_not_count():
    assert Latency.of([0, 0, 7, 9, 1000, 1000, 8, 8]).mean_ms == 8


def test_no_samples_have_no_statistics():
    with pytest.raises(ValueError, match="no samples"):
        Latency.of([])


@pytest.mark.parametrize(("warmup", "repeats"), [(0, 1), (3, 7)])
def test_counts_that_are_given_are_kept(warmup, repeats):
    call = Counted()
    taken = measure(call, CPU, warmup=warmup, repeats=repeats)
    assert call.calls == warmup + repeats
    assert (taken.warmup, taken.repeats) == (warmup, repeats)


def test_time_ends_what_has_no_count_but_not_before_the_least():
    call = Counted(0.002)
    taken = measure(call, CPU, seconds=0.001)
    assert taken.repeats == LEAST_REPEATS
    assert taken.warmup == 2
    assert taken.min_ms >= 2


def test_more_time_takes_more_samples_up_to_the_papers_500():
    assert measure(Counted(), CPU, seconds=10).repeats == 500
    assert LEAST_REPEATS < measure(Counted(0.001), CPU, seconds=0.1).repeats < 120


def test_one_call_is_timed_from_end_to_end():
    assert 10 <= timed_ms(Counted(0.01), CPU) < 200


def test_warm_up_tells_how_often_it_called():
    call = Counted()
    assert warm_up(call, CPU, 5, 0.0) == call.calls == 5


def test_calls_take_turns_and_the_second_of_each_turn_is_timed():
    order = []
    calls = {"dense": lambda: order.append("d"), "sparse": lambda: order.append("s")}
    taken = measure_paired(calls, CPU, warmup=1, repeats=3)
    assert "".join(order) == "ds" + "ddss" * 3
    assert {name: t.repeats for name, t in taken.items()} == {"dense": 3, "sparse": 3}


def test_paired_time_is_shared_and_tells_the_slow_from_the_fast():
    taken = measure_paired({"slow": Counted(0.004), "fast": Counted(0.001)}, CPU, seconds=0.05)
    assert taken["slow"].repeats == taken["fast"].repeats >= LEAST_REPEATS
    assert taken["slow"].median_ms > taken["fast"].median_ms
