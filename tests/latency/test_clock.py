"""Timing beside dense on a machine that does other work, and saying so."""

from __future__ import annotations

import pytest
import torch

from sparsevit.latency import clock as module
from sparsevit.latency import relative, timer
from sparsevit.latency.clock import Clock, Machine, believable, steadiest, steadiest_of_paired
from sparsevit.latency.relative import Share
from sparsevit.latency.timer import Latency

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def brief_timing():
    """Not here."""


class Simulated:
    """A clock that moves by what calls take, times how slow the machine is at that moment."""

    def __init__(self):
        self.now = 0.0
        self.slowness = lambda seconds: 1.0

    def call(self, ms):
        def run():
            self.now += ms / 1000 * self.slowness(self.now)

        return run


@pytest.fixture
def simulated(monkeypatch):
    made = Simulated()
    for owner in (relative.time, timer.time):
        monkeypatch.setattr(owner, "perf_counter", lambda: made.now)
    monkeypatch.setattr(module, "_others_seconds", lambda: None)
    return made


def share(value, error=0.001, dense_spread=0.01, dense_ms=100.0):
    return Share(value, error, 5, dense_ms, 1.0, dense_spread)


def in_turn(*found):
    left = list(found)
    return lambda: left.pop(0)


def test_what_a_machine_does_later_slows_dense_and_sparse_alike(simulated):
    said = []
    clock = Clock(lambda: simulated.call(100), CPU, 5.0, warn=said.append)
    assert clock.dense_ms == pytest.approx(100)
    assert clock(simulated.call(60)) == pytest.approx(60)
    assert said == []
    simulated.slowness = lambda seconds: 4.0
    assert clock(simulated.call(60)) == pytest.approx(60)
    assert clock(simulated.call(70)) == pytest.approx(70)
    assert clock.dense_ms == pytest.approx(100)
    assert len(said) == 1
    assert "the machine is busy: dense took 100 to 400 ms" in said[0]
    assert clock.machine.busy in said[0]


def test_dense_is_not_timed_where_it_is_known_from_before(simulated):
    clock = Clock(lambda: simulated.call(100), CPU, 5.0, dense_ms=50.0)
    assert clock.dense_ms == 50
    assert clock(simulated.call(60)) == pytest.approx(30)


@pytest.mark.parametrize(
    ("timings", "expected", "made"),
    [
        ([share(0.7)], 0.7, 1),
        # wider than what it says, then not
        ([share(0.9, 0.2), share(0.7)], 0.7, 2),
        # slower than dense, then not
        ([share(1.4), share(0.7)], 0.7, 2),
        # slower than dense, and so it is
        ([share(1.4), share(1.41), share(0.1)], 1.4, 2),
        # never good: the least bad
        ([share(0.9, 0.3), share(0.9, 0.2), share(0.9, 0.25)], 0.9, 3),
    ],
)
def test_a_figure_that_cannot_be_is_timed_again(timings, expected, made):
    found = believable(in_turn(*timings))
    assert found.share == expected
    assert found.seconds == made


def test_dense_is_timed_again_where_its_samples_are_far_apart():
    wild, calm = (
        Latency.of([100.0, 100.0, 300.0, 300.0, 500.0]),
        Latency.of([100.0, 100.0, 101.0, 101.0, 102.0]),
    )
    assert steadiest(in_turn(wild, calm)) is calm
    assert steadiest(in_turn(calm)) is calm


def test_calls_that_take_turns_are_timed_again_unless_their_number_is_given(monkeypatch):
    wild = {"dense": Latency.of([1.0, 1.0, 3.0, 3.0, 5.0])}
    calm = {"dense": Latency.of([1.0] * 5)}
    for repeats, expected in ((None, calm), (5, wild)):
        timings = in_turn(wild, calm)
        monkeypatch.setattr(module, "measure_paired", lambda *_, t=timings, **__: t())
        assert steadiest_of_paired({}, CPU, repeats=repeats) is expected


def test_a_sparse_call_slower_than_dense_is_timed_again(monkeypatch):
    dense = Latency.of([1.0] * 5)
    odd, right = ({"dense": dense, "sparse": Latency.of([ms] * 5)} for ms in (2.0, 0.5))
    timings = in_turn(odd, right)
    monkeypatch.setattr(module, "measure_paired", lambda *_, **__: timings())
    assert steadiest_of_paired({}, CPU) is right


@pytest.mark.parametrize(
    ("others", "threads", "busy"), [(0.1, 4, False), (2.5, 1, False), (2.5, 4, True)]
)
def test_other_processes_count_where_they_leave_too_few_cores(monkeypatch, others, threads, busy):
    monkeypatch.setattr(module.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: threads)
    seconds = iter([0.0, 10.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(seconds))
    taken = iter([7.0, 7.0 + 10 * others])
    monkeypatch.setattr(module, "_others_seconds", lambda: next(taken))
    machine = Machine(CPU)
    with machine.watched():
        pass
    assert bool(machine.busy) is busy
    if busy:
        assert "other processes take 2.5 of 4 cores" in machine.busy


def test_other_processes_are_read_from_the_operating_system():
    before = module._others_seconds()
    if before is None:
        pytest.skip("there is no /proc/stat")
    assert module._others_seconds() >= before - 0.1
