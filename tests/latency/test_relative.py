"""A call beside the dense model: paired, repeated until it is known well enough, or time is up."""

from __future__ import annotations

import math
import random
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.latency import relative as module
from sparsevit.latency.relative import measure_share, middle

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def brief_timing():
    """Not here."""


class Machine:
    """A clock that moves by what calls take, times how slow the machine is at that moment."""

    def __init__(self, slowness=lambda seconds: 1.0):
        self.now = 0.0
        self.slowness = slowness

    def perf_counter(self):
        return self.now

    def call(self, ms, noise=0.0, rng=None):
        def run():
            factor = self.slowness(self.now) * (1 + (rng.gauss(0, noise) if rng else 0.0))
            self.now += ms / 1000 * factor

        return run


@pytest.fixture
def machine(monkeypatch):
    from sparsevit.latency import timer

    made = Machine()
    monkeypatch.setattr(module.time, "perf_counter", made.perf_counter)
    monkeypatch.setattr(timer.time, "perf_counter", made.perf_counter)
    return made


def test_a_steady_machine_gives_the_ratio_and_stops_at_once(machine):
    found = measure_share(machine.call(150), machine.call(200), CPU, seconds=60)
    assert found.share == pytest.approx(0.75)
    assert found.dense_ms == pytest.approx(200)
    assert found.turns == 5
    assert found.standard_error == pytest.approx(0, abs=1e-9)
    assert found.seconds == pytest.approx(machine.now)


def test_a_machine_that_grows_slower_all_the_time_changes_nothing(machine):
    machine.slowness = lambda seconds: 1 + seconds / 10
    found = measure_share(machine.call(150), machine.call(200), CPU, seconds=60, most=20)
    assert found.share == pytest.approx(0.75, rel=0.005)
    assert found.dense_ms > 230


def test_a_disturbance_of_some_calls_is_left_out(machine):
    machine.slowness = lambda seconds: 5.0 if 2.0 < seconds < 2.2 else 1.0
    found = measure_share(machine.call(150), machine.call(200), CPU, seconds=60)
    assert found.share == pytest.approx(0.75, rel=1e-6)


def test_noise_is_measured_until_the_error_is_small(machine):
    rng = random.Random(0)
    calls = machine.call(150, 0.03, rng), machine.call(200, 0.03, rng)
    found = measure_share(*calls, CPU, seconds=1000, target=0.005)
    assert found.standard_error <= 0.005
    assert 10 < found.turns < 100
    assert found.share == pytest.approx(0.75, abs=0.02)


def test_time_that_is_up_leaves_the_least(machine):
    rng = random.Random(0)
    found = measure_share(
        machine.call(150, 0.1, rng), machine.call(200, 0.1, rng), CPU, seconds=0, target=0
    )
    assert found.turns == 5


def test_a_short_call_runs_once_untimed_before_each_time(machine):
    count = 0

    def call():
        nonlocal count
        count += 1
        machine.call(2)()

    found = measure_share(call, machine.call(4), CPU, seconds=1)
    assert count == 2 + 2 * found.turns


@given(st.lists(st.floats(1, 100), min_size=2, max_size=40))
def test_the_middle_half_is_that_of_the_papers_mean(samples):
    from sparsevit.latency.timer import Latency

    assert middle(samples)[0] == pytest.approx(Latency.of(samples).mean_ms)
    assert middle(samples)[1] >= 0


def test_the_standard_error_is_that_of_repetitions():
    rng = random.Random(0)
    means, errors = [], []
    for _ in range(500):
        mean, error = middle([rng.gauss(10, 1) for _ in range(20)])
        means.append(mean)
        errors.append(error)
    assert statistics.fmean(errors) == pytest.approx(statistics.stdev(means), rel=0.12)


def test_one_sample_has_no_error_to_speak_of():
    assert middle([3.0]) == (3.0, math.inf)
